"""AdaLoRA's kernel is that of PEFT's own modules."""

from __future__ import annotations

import pytest
import torch

from ntk_propulsion.kernels.tunings import (
    AdaLoRA,
    resolve_tuning,
)
from ntk_propulsion.models.roles import select
from tests.architectures import build
from tests.kernels.oracle import relative, tolerance
from tests.kernels.tunings.adapted import LINEAR, adapters, peft_model, projections, trained
from tests.kernels.tunings.zoo import compute, expected


@pytest.mark.parametrize("name", LINEAR)
def test_adalora_is_pefts(name: str) -> None:
    model = build(name)
    wrapped = peft_model(
        model,
        "AdaLoraConfig",
        init_r=4,
        lora_alpha=6,
        total_step=10,
        target_modules=projections(model, "query", "value"),
    )
    layers = adapters(wrapped, "lora_E")
    with torch.no_grad():  # large factors, so that the ranks' scale is seen to rounding
        for module in layers.values():
            module.lora_A["default"].mul_(50)
    factors = {n: (m.lora_B["default"], m.lora_A["default"]) for n, m in layers.items()}
    found = compute(name, model, AdaLoRA(4, 6, factors=factors))["adalora"]
    assert relative(found.matrix, expected(name, wrapped, trained(wrapped))) < tolerance(name)
    lambdas = [m.lora_E["default"] for m in layers.values()]
    assert relative(found.matrix, expected(name, wrapped, lambdas)) < tolerance(name)
    assert found.num_parameters == sum(p.numel() for p in lambdas)


def test_factors_are_drawn_as_peft_draws_them() -> None:
    """At a large rank both kernels are near their mean over the draw."""
    model, rank = build("mlp"), 6000
    tuning = AdaLoRA(rank, rank, "0", seed=5)
    settings = {"init_r": rank, "lora_alpha": rank, "total_step": 10, "target_modules": ["0"]}
    wrapped = peft_model(model, "AdaLoraConfig", **settings)
    theirs = expected("mlp", wrapped, trained(wrapped))
    assert relative(compute("mlp", model, tuning)["adalora"].matrix, theirs) < 0.1


def test_a_configuration_of_peft_is_the_tuning() -> None:
    peft = pytest.importorskip("peft", reason="PEFT is not installed: pip install peft")
    settings = {"init_r": 4, "lora_alpha": 6, "target_modules": ["query", "mlp.fc"]}
    tuning = resolve_tuning(peft.AdaLoraConfig(total_step=10, tinit=2, **settings))
    assert (tuning.rank, tuning.alpha, tuning.name) == (4, 6, "adalora")
    bound = [feature.module for feature in tuning.bind(build("bert")).features]
    assert bound == list(select(build("bert"), "*.query"))
