"""Adapters of ``peft`` in a model: put in, recognised, named. ``peft`` need not be installed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.runs.quiet import quiet


def require_peft(what: str) -> ModuleType:
    """Return ``peft``.

    Raises:
        InputError: It is not installed; ``what`` needs it.
    """
    try:
        return import_module("peft")
    except ImportError:
        raise InputError(
            f"{what} is trained through peft: pip install 'ntk_propulsion[peft]'"
        ) from None


def is_peft_config(value: Any) -> bool:
    """Return whether this is a configuration of ``peft``."""
    return hasattr(value, "peft_type") and hasattr(value, "to_dict") and not isinstance(value, type)


def peft_name(config: Any) -> str:
    """Return what kind of adapter a configuration of ``peft`` describes: ``"lora"`` ..."""
    return str(getattr(config.peft_type, "value", config.peft_type)).lower()


def inject_adapter(model: nn.Module, config: Any, seed: int) -> None:
    """Put adapters into a model's layers; the model keeps its class, the rest is frozen.

    Args:
        model: A plain model.
        config: A configuration of ``peft``.
        seed: Of what ``peft`` draws.

    Raises:
        InputError: ``peft`` cannot.
    """
    from peft import inject_adapter_in_model

    model.requires_grad_(False)
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            inject_adapter_in_model(config, model)
        except ValueError as error:
            reason = " ".join(str(error).split())
            raise InputError(f"peft cannot train {type(model).__name__} so: {reason}") from error
    _freeze_settings(model)


def _freeze_settings(model: nn.Module) -> None:
    """Freeze the numbers that an adapter keeps but does not train, such as AdaLoRA's rank.

    ``peft`` freezes them too, but thaws them where it moves them to the model's dtype.
    """
    is_adapter = adapter_test()
    for layer in filter(is_adapter, model.modules()):
        for name in layer.other_param_names:  # type: ignore[union-attr]
            setting = getattr(layer, str(name), None)
            if isinstance(setting, nn.Module):
                setting.requires_grad_(False)


def adapter_test() -> Callable[[Any], bool]:
    """Return a test of whether a module is a layer that ``peft`` adapts."""
    # what is not imported has no layer here, and importing it takes seconds
    if sys.modules.get("peft.tuners.tuners_utils") is None:
        return lambda layer: False
    from peft.tuners.tuners_utils import BaseTunerLayer

    return lambda layer: isinstance(layer, BaseTunerLayer)
