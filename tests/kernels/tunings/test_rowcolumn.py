"""RowColumn trains whole rows or columns."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.tunings import (
    RowColumn,
)
from ntk_propulsion.models.roles import select
from tests.architectures import build
from tests.kernels.oracle import relative, tolerance
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
