"""Jacobians of numbers that layers compute with, by plain autograd inside `Feature.displaced`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from ntk_propulsion.kernels import visit_layers
from ntk_propulsion.kernels.batch import call
from ntk_propulsion.kernels.blocks import LayerUse, feature_rows
from ntk_propulsion.kernels.tunings import Feature
from tests.kernels.oracle import gradients


def standing(features: Iterable[Feature]) -> list[Tensor]:
    return [torch.zeros(f.size, dtype=torch.float64, requires_grad=True) for f in features]


def displaced(model: nn.Module, features: Sequence[Feature], deltas: Sequence[Tensor]) -> ExitStack:
    """All features of a tuning at once."""
    stack = ExitStack()
    for feature, delta in zip(features, deltas, strict=True):
        stack.enter_context(feature.displaced(model.get_submodule(feature.module), delta))
    return stack


def jacobian(
    model: nn.Module, batch: Any, features: Sequence[Feature], outputs: Any = "logits"
) -> Tensor:
    """Rows n*O + o, columns the numbers of the features one after the other."""
    deltas = standing(features)
    with displaced(model, features, deltas):
        return gradients(model, batch, outputs, deltas)


def closed_rows(
    model: nn.Module, batch: Any, features: Sequence[Feature], outputs: Any = "logits"
) -> Tensor:
    """The same by the closed forms of plain layers; zero where no example reaches a layer."""
    found: dict[int, Tensor] = {}

    def visit(name: str, uses: list[LayerUse]) -> None:
        for i, feature in enumerate(features):
            if feature.module == name:
                found[i] = feature_rows(feature, uses)

    visit_layers(model, batch, visit, outputs=outputs)
    rows = len(next(iter(found.values())))
    parts = [found.get(i, torch.zeros(rows, f.size).double()) for i, f in enumerate(features)]
    return torch.cat(parts, 1)


def outputs_of(model: nn.Module, batch: Any) -> Tensor:
    found = call(model, batch)
    return found if isinstance(found, Tensor) else found.logits
