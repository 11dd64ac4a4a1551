"""Kernels of formulas written out, example by example, and models to take them of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn

from ntk_propulsion.kernels import empirical_ntk
from tests.architectures import SIZES


def by_hand(model: nn.Module, batch: Any, formula: Callable[[Any, int], Tensor]) -> Tensor:
    """The kernel of ``formula(output of example n alone, n)``, (O,)."""
    parameters, rows = list(model.requires_grad_(True).parameters()), []
    inputs = batch if isinstance(batch, dict) else {"input": batch}
    for n in range(len(next(iter(inputs.values())))):
        values = formula(model(**{k: v[n : n + 1] for k, v in inputs.items()}), n)
        for value in values:
            found = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
            rows.append(
                torch.cat(
                    [
                        (torch.zeros_like(p) if g is None else g).flatten()
                        for g, p in zip(found, parameters, strict=True)
                    ]
                )
            )
    return torch.stack(rows) @ torch.stack(rows).T


def tiny(model: str, config: str, **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    return getattr(hf, model)(getattr(hf, config)(**SIZES, **settings)).double().eval()


def kernel(model: nn.Module, batch: Any, outputs: Any, **keywords: Any) -> Tensor:
    return empirical_ntk(model, batch, ["full"], outputs, **keywords)["full"].matrix
