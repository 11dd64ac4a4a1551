"""Models that PEFT has wrapped."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ntk_propulsion.models.roles import select
from tests.kernels.tunings.zoo import NAMES

LINEAR = [*(name for name in NAMES if name != "mlp"), "falcon"]


def peft_model(model: nn.Module, kind: str, **settings: Any) -> nn.Module:
    peft = pytest.importorskip("peft", reason="PEFT is not installed: pip install peft")
    torch.manual_seed(1)
    return (
        peft.get_peft_model(copy.deepcopy(model), getattr(peft, kind)(**settings)).double().eval()
    )


def adapters(wrapped: nn.Module, attribute: str) -> dict[str, nn.Module]:
    """PEFT's adapted layers by their names in the plain model."""
    prefix = "base_model.model."
    return {
        name.removeprefix(prefix): module
        for name, module in wrapped.named_modules()
        if hasattr(module, attribute) and "default" in getattr(module, attribute)
    }


def trained(wrapped: nn.Module) -> list[Tensor]:
    return [p for p in wrapped.parameters() if p.requires_grad]


def projections(model: nn.Module, *wanted: str) -> list[str]:
    if "qkv" in select(model).values():
        wanted = ("query", "key", "value")
    return list(select(model, wanted))
