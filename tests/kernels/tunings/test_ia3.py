"""IA3's kernel is that of PEFT's own modules."""

from __future__ import annotations

from typing import Any

import pytest

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.tunings import (
    IA3,
    resolve_tuning,
)
from tests.architectures import build
from tests.kernels.oracle import relative, tolerance
from tests.kernels.tunings.adapted import LINEAR, peft_model, projections, trained
from tests.kernels.tunings.zoo import compute, expected


@pytest.mark.parametrize("name", LINEAR)
def test_ia3_is_pefts(name: str) -> None:
    model = build(name)
    tuning = IA3()
    inner = [f.module for f in tuning.bind(model).features if not f.needs_output]
    wrapped = peft_model(
        model,
        "IA3Config",
        target_modules=[*projections(model, "key", "value"), *inner],
        feedforward_modules=inner,
    )
    found = compute(name, model, tuning)["ia3"]
    assert inner
    assert relative(found.matrix, expected(name, wrapped, trained(wrapped))) < tolerance(name)
    assert found.num_parameters == sum(p.numel() for p in trained(wrapped))


def test_a_configuration_of_peft_is_the_tuning() -> None:
    peft = pytest.importorskip("peft", reason="PEFT is not installed: pip install peft")
    model, inner = build("bert"), ["output.dense"]
    settings = {"target_modules": ["key", *inner], "feedforward_modules": inner}
    found = compute("bert", model, peft.IA3Config(**settings))["ia3"]
    wrapped = peft_model(model, "IA3Config", **settings)
    assert relative(found.matrix, expected("bert", wrapped, trained(wrapped))) < 1e-12
    assert resolve_tuning(peft.IA3Config()) == IA3()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_modules": ["key"]}, "give both target_modules and feedforward_modules"),
        ({"target_modules": "key", "feedforward_modules": "key"}, "as lists of names"),
    ],
)
def test_a_configuration_that_is_not_the_tuning_is_refused(settings: Any, message: str) -> None:
    peft = pytest.importorskip("peft", reason="PEFT is not installed: pip install peft")
    with pytest.raises(InputError, match=message):
        resolve_tuning(peft.IA3Config(**settings))
