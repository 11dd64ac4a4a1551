"""From what a caller may say of a tuning to the tuning."""

from __future__ import annotations

from typing import Any

import pytest

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.tunings import (
    Full,
    Head,
    LoRA,
    Parameters,
    Propulsion,
    RandomSubset,
    resolve_tuning,
)
from ntk_propulsion.propulsion import PropulsionConfig


def test_tunings_by_name() -> None:
    found = resolve_tuning("propulsion+head", degree=4)
    assert found.name == "propulsion+head"
    assert found.tunings == (Propulsion(4), Head())
    assert resolve_tuning("random_subset", degree=4) == RandomSubset()


def test_a_class_is_the_tuning_with_its_defaults() -> None:
    assert resolve_tuning(Full) == Full()
    assert resolve_tuning(LoRA) == LoRA()
    with pytest.raises(
        InputError, match=r"Parameters needs its settings: give Parameters\(\.\.\.\)"
    ):
        resolve_tuning(Parameters)


def test_a_tuning_is_itself_and_a_configuration_its_tuning() -> None:
    tuning = LoRA(3)
    assert resolve_tuning(tuning) is tuning
    assert resolve_tuning(PropulsionConfig(3, "mlp")) == Propulsion(3, "mlp")


@pytest.mark.parametrize("value", [3, None, PropulsionConfig, ["full"]])
def test_what_is_no_tuning_is_refused_with_what_is(value: Any) -> None:
    with pytest.raises(InputError, match=r"is no tuning: give a name \(full, propulsion"):
        resolve_tuning(value)


def test_near_names_are_named() -> None:
    with pytest.raises(InputError, match="did you mean propulsion"):
        resolve_tuning("propulsoin+head")


def test_a_configuration_of_peft_that_is_no_tuning_is_named() -> None:
    peft = pytest.importorskip("peft", reason="PEFT is not installed: pip install peft")
    with pytest.raises(InputError, match=r"no tuning is a VeraConfig.*'trainable'"):
        resolve_tuning(peft.VeraConfig())
