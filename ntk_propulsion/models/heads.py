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
    head = _head_owners(model)
    return [name for name, parameter in model.named_parameters() if id(parameter) in head]


def head_modules(model: nn.Module) -> set[str]:
    """Return the modules outside the base model and those in a head's role (BERT's pooler)."""
    owners = set(_head_owners(model).values())
    return owners | {name for name, role in module_roles(model).items() if role == "head"}


def _head_owners(model: nn.Module) -> dict[int, str]:
    """Return the module that each parameter of the head, by its id, belongs to first.

    Not by the parameters' names: some wrappers leave their own part out of those.
    """
    modules = {name: model.get_submodule(name) for name in plain_names(model)}
    owners: dict[int, str] = {}
    for name, module in modules.items():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners.setdefault(id(parameter), name)
    bases = [base_of(inner) for _, inner in pretrained_models(model)]
    if bases and None not in bases:
        inside = {id(p) for base in bases if base is not None for p in base.parameters()}
        return {number: name for number, name in owners.items() if number not in inside}
    linear = [name for name, module in modules.items() if isinstance(module, nn.Linear)]
    return {number: name for number, name in owners.items() if name in linear[-1:]}


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
