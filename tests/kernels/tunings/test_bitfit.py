"""BitFit trains the biases."""

from __future__ import annotations

import pytest
from torch import nn
from torch.nn.utils import parametrizations

from ntk_propulsion.kernels.tunings import (
    BitFit,
)
from tests.architectures import build
from tests.kernels.oracle import relative, tolerance
from tests.kernels.tunings.zoo import compute, expected


@pytest.mark.parametrize("name", ["bert", "gpt2", "albert", "attention", "deberta"])
def test_bitfit_trains_the_biases(name: str) -> None:
    model = build(name)
    found = compute(name, model, BitFit())["bitfit"]
    biases = [p for n, p in model.named_parameters() if "bias" in n.split(".")[-1]]
    assert relative(found.matrix, expected(name, model, biases)) < tolerance(name)
    assert found.num_parameters == sum(p.numel() for p in biases)


def test_a_parametrized_bias_trains_by_what_makes_it() -> None:
    layer = parametrizations.weight_norm(nn.Linear(4, 4), "bias", dim=None)
    assert BitFit().bind(nn.Sequential(layer)).parameters == (
        "0.parametrizations.bias.original0",
        "0.parametrizations.bias.original1",
    )
