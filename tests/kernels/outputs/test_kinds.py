"""The register of output kinds, and what every kind refuses alike."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.outputs import (
    OUTPUTS,
    BatchOutputs,
    Logits,
    Outputs,
    check_offered,
)
from tests.architectures import build, vectors
from tests.kernels.outputs.hand import by_hand, kernel


def test_every_kind_with_a_name_is_registered_and_says_what_it_is() -> None:
    assert OUTPUTS["logits"] == Logits()
    assert OUTPUTS.keys() >= {"logits", "margin", "sum", "loss"}
    assert all(kind.name == name and kind.label for name, kind in OUTPUTS.items())


def test_experiments_offer_what_needs_only_logits() -> None:
    for name in ("logits", "margin", "sum"):
        check_offered(name)
    with pytest.raises(InputError, match="unknown outputs 'loss'"):
        check_offered("loss")


def test_a_kind_of_ones_own_needs_no_registration() -> None:
    class Largest(Outputs):
        label = "the largest logit"

        def __call__(self, output: Any) -> Tensor:
            return output.max(1, keepdim=True).values

    model, batch = build("mlp"), vectors(4)
    expected = by_hand(model, batch, lambda o, n: o.max(1).values)
    torch.testing.assert_close(kernel(model, batch, Largest()), expected)


def test_a_kind_without_its_formula_cannot_be_made() -> None:
    class Unfinished(BatchOutputs):
        def targets(self, batch: Any) -> Tensor:
            return torch.zeros(1)

    with pytest.raises(TypeError, match="abstract"):
        Unfinished()


def test_kinds_suit_every_task_and_have_no_goals_unless_they_say_so() -> None:
    kind = OUTPUTS["loss"]
    kind.check_task("any", 7, opposite=True)
    assert kind.goals(torch.eye(2).numpy()) is None
