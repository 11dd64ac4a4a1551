"""Full fine-tuning trains every parameter."""

from __future__ import annotations

import pytest

from ntk_propulsion.kernels.tunings import (
    Full,
)
from tests.architectures import build
from tests.kernels.oracle import relative
from tests.kernels.tunings.zoo import compute, expected


@pytest.mark.parametrize("name", ["mlp", "bert"])
def test_full_trains_every_parameter_whatever_requires_a_gradient(name: str) -> None:
    model = build(name)
    next(model.parameters()).requires_grad_(False)
    found = compute(name, model, Full())["full"]
    assert relative(found.matrix, expected(name, model, list(model.parameters()))) < 1e-12
    assert found.num_parameters == sum(p.numel() for p in model.parameters())
