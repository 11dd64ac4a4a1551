"""The one answer to "what is the head?": what lies outside the pretrained base of a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.models.roles import module_roles
from ntk_propulsion.models.state import evaluation_mode
from ntk_propulsion.models.wrappers import base_name, base_of, plain_names, pretrained_models


def base_prefix(model: nn.Module) -> str:
    """Return the prefix (with its dot) of the parameters that belong to the pretrained base.

    Raises:
        InputError: The model does not name its base, or holds several.
    """
    found = pretrained_models(model)
    if len(found) != 1 or base_of(found[0][1]) is None:
        raise InputError(f"{type(model).__name__} does not tell its base from its head")
    name, inner = found[0]
    return f"{name}.{base_name(inner)}.".removeprefix(".")


def head_parameters(model: nn.Module) -> list[str]:
    """Return the names of the parameters outside the pretrained base model.

    BERT's pooler is part of its base; RoBERTa's dense layer before the output is not. A model that
    does not name its base (not a transformers model) has its last linear layer for a head. Around
    a model may be any wrapper (`ntk_propulsion.models.wrappers`): the head is that of the model
    inside, under the names outside. Numbers of adapters belong to no head.
    """
    named, modules, inside = list(model.named_parameters()), plain_names(model), set[int]()
    bases = [base_of(inner) for _, inner in pretrained_models(model)]
    for base in bases:
        inside |= {id(p) for p in base.parameters()} if base is not None else set()
    if bases and None not in bases:
        own = [name for name, p in named if id(p) not in inside]
        return [name for name in own if name.rpartition(".")[0] in modules]
    linear = [name for name in modules if isinstance(model.get_submodule(name), nn.Linear)]
    return [name for name, _ in named if linear and name.rpartition(".")[0] == linear[-1]]


def head_modules(model: nn.Module) -> set[str]:
    """Return the modules outside the base model and those in a head's role (BERT's pooler)."""
    owners = {name.rpartition(".")[0] for name in head_parameters(model)}
    return owners | {name for name, role in module_roles(model).items() if role == "head"}


def final_linear(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[str, nn.Linear]:
    """Find the linear layer that makes the logits: the last one called with as many outputs.

    Args:
        model: A classifier that names its base.
        batch: What it takes, for one run.

    Raises:
        InputError: If no linear layer outside the base has as many outputs as the model.
    """
    called: list[tuple[str, nn.Linear]] = []
    prefix = base_prefix(model)
    outside = [name for name in plain_names(model) if not name.startswith(prefix)]
    handles = [
        layer.register_forward_hook(lambda m, _i, _o, name=name: called.append((name, m)))
        for name, layer in ((name, model.get_submodule(name)) for name in outside)
        if isinstance(layer, nn.Linear)
    ]
    try:
        with evaluation_mode(model), torch.no_grad():
            logits = model(**batch).logits
    finally:
        for handle in handles:
            handle.remove()
    called = [(name, layer) for name, layer in called if layer.out_features == logits.shape[-1]]
    if not called:
        raise no_linear_head(model)
    return called[-1]


def no_linear_head(model: nn.Module) -> InputError:
    """Return the error for a model whose logits come from more than a linear layer."""
    return InputError(
        f"cannot fit a probe: no linear layer of {type(model).__name__} makes the logits alone "
        "(use the head random)"
    )


@torch.no_grad()
def random_head(model: Any, seed: int) -> None:
    """Draw a head's parameters anew: weights from N(0, initializer_range**2), biases 0, scales 1.

    Args:
        model: The model, changed in place; the draw is the same on every device.
        seed: Fixes the draw.
    """
    inner = [found for _, found in pretrained_models(model)]
    config: Any = (inner[0] if len(inner) == 1 else model).config
    std = getattr(config, "initializer_range", None) or getattr(config, "init_std", None) or 0.02
    generator = torch.Generator().manual_seed(seed)
    names = set(head_parameters(model))
    for name, parameter in model.named_parameters():
        if name not in names:
            continue
        if parameter.ndim >= 2:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
        else:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
