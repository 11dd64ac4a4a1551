"""Configurations of PEFT are read as tunings or refused, and adapt just the tuning's layers."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.tunings import AdaLoRA, LoRA
from ntk_propulsion.kernels.tunings._features import PeftTargets
from ntk_propulsion.kernels.tunings._peft import (
    check_understood,
    exactly,
    of_peft,
    target_layers,
    where,
)
from tests.architectures import build
from tests.kernels.tunings.adapted import adapters

NAME = st.text(st.sampled_from("ab.*_("), min_size=1, max_size=6)


@dataclass
class MadeUpConfig:
    """A configuration as PEFT writes them."""

    peft_type: str = "MADE_UP"
    r: int = 8
    bias: str = "none"
    init_weights: bool = True
    layers: list[int] | None = None
    ranks: dict[str, int] = field(default_factory=dict)
    lora_dropout: float = 0.0


CHANGES: dict[str, Any] = {
    "r": 4,
    "bias": "all",
    "init_weights": False,
    "layers": [0],
    "ranks": {"query": 2},
}


@given(changed=st.sets(st.sampled_from([*CHANGES])), known=st.sets(st.sampled_from([*CHANGES])))
def test_a_configuration_may_set_what_is_understood_and_nothing_else(
    changed: Set[str], known: Set[str]
) -> None:
    config = MadeUpConfig(**{name: CHANGES[name] for name in changed}, lora_dropout=0.1)
    if changed <= known:
        check_understood(config, known)
        return
    with pytest.raises(InputError) as caught:
        check_understood(config, known)
    listed = ", ".join(f"{n}={v!r}" for n, v in CHANGES.items() if n in changed - known)
    assert f"MadeUpConfig with {listed} is no tuning here" in str(caught.value)


def test_nothing_is_nothing_however_it_is_written() -> None:
    config = MadeUpConfig(layers=[], ranks=None)  # type: ignore[arg-type]
    check_understood(config, ())


def test_a_configuration_that_no_tuning_is_of_says_what_to_take_instead() -> None:
    with pytest.raises(InputError, match=r"no tuning is a MadeUpConfig: take .*'trainable'"):
        of_peft(MadeUpConfig())


@pytest.mark.parametrize("tuning", [LoRA(3, 5.0), AdaLoRA(4, 6.0, "attention_output")])
def test_a_tuning_comes_back_from_the_configuration_that_trains_it(
    tuning: LoRA | AdaLoRA,
) -> None:
    pytest.importorskip("peft", reason="PEFT is not installed: pip install peft")
    model = build("bert")
    again = of_peft(tuning.peft_config(model, steps=3))
    assert type(again) is type(tuning)
    assert (again.rank, again.alpha) == (tuning.rank, tuning.alpha)
    mine, theirs = ([f.module for f in each.bind(model).features] for each in (tuning, again))
    assert mine == theirs


def test_target_modules_are_names_or_a_pattern_or_the_architectures_own() -> None:
    assert target_layers(None) is None
    assert target_layers({"value", "query"}) == PeftTargets(("query", "value"))
    assert target_layers(r".*\.query") == PeftTargets(r".*\.query")
    with pytest.raises(InputError, match="'all-linear': name the layers, or take"):
        target_layers("all-linear")


@given(names=st.lists(NAME, min_size=1, max_size=3), other=NAME)
def test_a_pattern_of_exact_names_is_of_them_and_of_no_other(names: list[str], other: str) -> None:
    targets = PeftTargets(exactly(names))
    assert all(map(targets.include, names))
    assert targets.include(other) == (other in names)


def test_a_transposed_weight_is_told_to_peft() -> None:
    assert where(build("gpt2"), ["transformer.h.0.attn.c_attn"])["fan_in_fan_out"]
    assert not where(build("mlp"), ["0"])["fan_in_fan_out"]


def test_only_the_layers_of_the_tuning_are_adapted_not_those_whose_names_end_alike() -> None:
    pytest.importorskip("peft", reason="PEFT is not installed: pip install peft")
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)))
    LoRA(2, positions="0").prepare(model)
    assert list(adapters(model, "lora_A")) == ["0"]
    assert {n.split(".")[0] for n, p in model.named_parameters() if p.requires_grad} == {"0"}


def test_factors_are_drawn_by_the_seed_alone_and_no_random_number_is_lost() -> None:
    pytest.importorskip("peft", reason="PEFT is not installed: pip install peft")
    drawn = []
    for seed in (1, 1, 2):
        model = build("mlp")
        before = torch.get_rng_state()
        LoRA(2, positions="0").prepare(model, seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        drawn.append(adapters(model, "lora_A")["0"].lora_A["default"].weight)
        torch.rand(1)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_given_factors_cannot_be_trained_by_peft() -> None:
    pytest.importorskip("peft", reason="PEFT is not installed: pip install peft")
    given_a, given_pair = {"0": torch.ones(2, 6)}, {"0": (torch.ones(8, 2), torch.ones(2, 6))}
    for tuning in (LoRA(2, positions="0", a=given_a), AdaLoRA(2, 2, "0", factors=given_pair)):
        with pytest.raises(InputError, match="peft draws its own, leave them out"):
            tuning.prepare(build("mlp"))
