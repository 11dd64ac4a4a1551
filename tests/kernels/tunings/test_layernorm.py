"""LayerNorm's kernel is that of PEFT's own modules."""

from __future__ import annotations

import pytest
from torch import nn
from torch.nn.utils import parametrizations

from ntk_propulsion.kernels.tunings import (
    LayerNorm,
)
from tests.architectures import build
from tests.kernels.oracle import relative, tolerance
from tests.kernels.tunings.adapted import LINEAR, peft_model, trained
from tests.kernels.tunings.zoo import compute, expected


@pytest.mark.parametrize("name", LINEAR)
def test_layernorm_is_pefts(name: str) -> None:
    model = build(name)
    norms = [n for n, m in model.named_modules() if "norm" in type(m).__name__.lower()]
    wrapped = peft_model(model, "LNTuningConfig", target_modules=norms)
    found = compute(name, model, LayerNorm())["layernorm"]
    assert relative(found.matrix, expected(name, wrapped, trained(wrapped))) < tolerance(name)
    assert found.num_parameters == sum(p.numel() for p in trained(wrapped))


def test_a_norm_with_a_parametrized_scale_trains_what_makes_it() -> None:
    norm = parametrizations.weight_norm(nn.LayerNorm(4), dim=None)
    model = nn.Sequential(nn.Linear(4, 4), norm)
    assert LayerNorm().bind(model).parameters == (
        "1.bias",
        "1.parametrizations.weight.original0",
        "1.parametrizations.weight.original1",
    )
