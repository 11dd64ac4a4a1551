"""LoRA's kernel is that of PEFT's own modules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.tunings import (
    LoRA,
    resolve_tuning,
)
from tests.architectures import build
from tests.kernels.oracle import relative, tolerance
from tests.kernels.tunings.adapted import LINEAR, adapters, peft_model, projections, trained
from tests.kernels.tunings.zoo import compute, expected


@pytest.mark.parametrize("name", LINEAR)
def test_lora_is_pefts(name: str) -> None:
    model = build(name)
    targets = projections(model, "query", "value")
    wrapped = peft_model(model, "LoraConfig", r=3, lora_alpha=5, target_modules=targets)
    a = {n: m.lora_A["default"].weight for n, m in adapters(wrapped, "lora_A").items()}
    found = compute(name, model, LoRA(3, 5, a=a))["lora"]
    assert a.keys() == set(targets)
    assert relative(found.matrix, expected(name, wrapped, trained(wrapped))) < tolerance(name)
    of_b = [m.lora_B["default"].weight for m in adapters(wrapped, "lora_A").values()]
    assert found.num_parameters == sum(b.numel() for b in of_b)


def test_factors_are_drawn_as_peft_draws_them() -> None:
    """At a large rank both kernels are near their mean over the draw."""
    model, rank = build("mlp"), 6000
    tuning = LoRA(rank, 10 * rank, "0", seed=5)
    settings = {"r": rank, "lora_alpha": 10 * rank, "target_modules": ["0"]}
    wrapped = peft_model(model, "LoraConfig", **settings)
    theirs = expected("mlp", wrapped, trained(wrapped))
    assert relative(compute("mlp", model, tuning)["lora"].matrix, theirs) < 0.1


@pytest.mark.parametrize("targets", [["query", "value"], r".*\.(query|value)", None])
def test_a_configuration_of_peft_is_the_tuning(targets: Any) -> None:
    peft = pytest.importorskip("peft", reason="PEFT is not installed: pip install peft")
    model, settings = build("bert"), {"r": 3, "lora_alpha": 5, "target_modules": targets}
    names = projections(model, "query", "value")
    wrapped = peft_model(model, "LoraConfig", **{**settings, "target_modules": names})
    a = {n: m.lora_A["default"].weight for n, m in adapters(wrapped, "lora_A").items()}
    tuning = resolve_tuning(peft.LoraConfig(**settings, lora_dropout=0.1, task_type="SEQ_CLS"))
    found = compute("bert", model, replace(tuning, a=a))["lora"]
    assert relative(found.matrix, expected("bert", wrapped, trained(wrapped))) < 1e-12


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_dora": True}, "use_dora=True is no tuning here.*get_peft_model.*'trainable'"),
        ({"bias": "all", "use_rslora": True}, "bias='all', use_rslora=True"),
        ({"target_modules": "all-linear"}, "all-linear': name the layers"),
        ({"target_modules": ["word_embeddings"]}, "word_embeddings is an embedding"),
        ({"target_modules": ["nothing"]}, "select no linear layer"),
    ],
)
def test_a_configuration_that_is_not_the_tuning_is_refused(settings: Any, message: str) -> None:
    peft = pytest.importorskip("peft", reason="PEFT is not installed: pip install peft")
    with pytest.raises(InputError, match=message):
        compute("bert", build("bert"), peft.LoraConfig(**settings))


def test_factors_of_another_size_are_refused_by_layer() -> None:
    model = build("bert")
    a = {layer: torch.zeros(2, 16) for layer in projections(model, "query", "value")}
    with pytest.raises(InputError, match=r"A of module 'bert.*must be \(4, 16\) and is \(2, 16\)"):
        compute("bert", model, LoRA(4, a=a))


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("bert", lambda: LoRA(2, a={"x": torch.zeros(2, 16)}), "given for x but not for 'bert"),
        ("gpt2", lambda: LoRA(positions=("query", "value")), "query, key and value in one"),
        ("mlp", lambda: LoRA(), "query"),
    ],
)
def test_bad_input_is_named(name: str, make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compute(name, build(name), make())
