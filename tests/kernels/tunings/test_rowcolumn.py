"""RowColumn trains whole rows or columns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, weight_norm
from transformers.pytorch_utils import Conv1D

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.tunings import (
    Full,
    RowColumn,
)
from ntk_propulsion.models.roles import select
from tests.architectures import build
from tests.kernels.oracle import relative, tolerance
from tests.kernels.tunings.odd import Buffered
from tests.kernels.tunings.zoo import compute, rows


@pytest.mark.parametrize("name", ["bert", "gpt2", "albert", "opt"])
@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_rowcolumn_trains_output_neurons_or_input_features(name: str, axis: str) -> None:
    model = build(name)
    found = compute(name, model, RowColumn(3, axis))["rowcolumn"]
    total, size = 0, 0
    for layer in select(model, "encoder"):
        module = model.get_submodule(layer)
        jacobian = rows(name, model, [module.weight]).view(-1, *module.weight.shape)
        rows_first = isinstance(module, nn.Linear) == (axis == "rows")
        part = (jacobian[:, :3] if rows_first else jacobian[:, :, :3]).flatten(1)
        total, size = total + part @ part.T, size + part.shape[1]
    assert relative(found.matrix, total) < tolerance(name)
    assert found.num_parameters == size


@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_a_weight_of_several_uses_trains_once_at_all_of_them(axis: str) -> None:
    """Tied layers, and a weight that the model also reads by itself, as it is and transposed."""
    for name, layers in {"shared-tensor": "*code", "functional": "owner"}.items():
        model = build(name)
        found = compute(name, model, RowColumn(2, axis, layers))["rowcolumn"]
        weight = model.encode.weight if name == "shared-tensor" else model.owner.weight
        jacobian = rows(name, model, [weight]).view(-1, 6, 6)
        part = (jacobian[:, :2] if axis == "rows" else jacobian[:, :, :2]).flatten(1)
        assert relative(found.matrix, part @ part.T) < 1e-12
        assert found.num_parameters == 12


def test_a_weight_that_a_conv1d_shares_with_a_linear_layer_trains_rows_of_both() -> None:
    linear, conv = nn.Linear(4, 4), Conv1D(4, 4)
    conv.weight = linear.weight
    entries = RowColumn(1, positions="all").bind(nn.Sequential(linear, conv)).entries
    assert {name: index.tolist() for name, index in entries.items()} == {
        "0.weight": [0, 1, 2, 3, 4, 8, 12]
    }


def test_together_with_the_whole_weight_it_adds_nothing() -> None:
    model = build("bert")
    both = compute("bert", model, RowColumn() + Full(), Full())
    assert relative(both["rowcolumn+full"].matrix, both["full"].matrix) < 1e-14


def packed() -> nn.Linear:
    layer = nn.Linear(4, 4)
    layer.weight = nn.Parameter(torch.zeros(8, dtype=torch.uint8), requires_grad=False)
    return layer


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (parametrizations.weight_norm(nn.Linear(4, 4)), "'0' has no weight of its own"),
        (weight_norm(nn.Linear(4, 4)), "'0' has no weight of its own"),
        (Buffered(4, 4), "'0' has no weight of its own.*leave it out"),
        (packed(), r"'0' has a weight of shape \(8,\) in torch.uint8.*real numbers, \(4, 4\)"),
        (nn.Linear(4, 4, dtype=torch.complex64), "'0' has a weight .* in torch.complex64"),
    ],
    ids=["weight_norm", "old weight_norm", "no weight", "packed", "complex"],
)
def test_a_layer_without_rows_and_columns_is_named(layer: nn.Module, message: str) -> None:
    with pytest.raises(InputError, match=message):
        RowColumn(positions="all").bind(nn.Sequential(layer, nn.Linear(4, 2)))


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("bert", lambda: RowColumn(axis="row"), "did you mean rows"),
        ("bert", lambda: RowColumn(0), "at least one"),
    ],
)
def test_bad_input_is_named(name: str, make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compute(name, build(name), make())
