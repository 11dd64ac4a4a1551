"""The one answer to "what is the head?": what lies outside the pretrained base of a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.models.roles import module_roles
from ntk_propulsion.models.state import evaluation_mode


def base_prefix(model: Any) -> str:
    """Return the prefix (with its dot) of the parameters that belong to the pretrained base.

    Raises:
        InputError: If the model does not name its base.
    """
    prefix = getattr(model, "base_model_prefix", "")
    if not prefix or not hasattr(model, prefix):
        raise InputError(f"{type(model).__name__} does not tell its base from its head")
    return f"{prefix}."


def head_parameters(model: nn.Module) -> list[str]:
    """Return the names of the parameters outside the pretrained base model.

    BERT's pooler is part of its base; RoBERTa's dense layer before the output is not. A model that
    does not name its base (not a transformers model) has its last linear layer for a head.
    """
    prefix = getattr(model, "base_model_prefix", "")
    base = getattr(model, prefix, None) if prefix else None
    named = list(model.named_parameters())
    if isinstance(base, nn.Module) and base is not model:
        inside = {id(p) for p in base.parameters()}
        return [name for name, p in named if id(p) not in inside]
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
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
    handles = [
        module.register_forward_hook(lambda m, _i, _o, name=name: called.append((name, m)))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not name.startswith(prefix)
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
    config = model.config
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
