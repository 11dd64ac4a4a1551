"""The margin of two classes."""

from __future__ import annotations

import pytest

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.outputs import Margin
from tests.architectures import build, tokens
from tests.kernels.oracle import relative
from tests.kernels.outputs.hand import by_hand, kernel


def test_margin_is_logit_one_minus_logit_zero() -> None:
    model, batch = build("bert"), tokens(3)
    expected = by_hand(model, batch, lambda o, n: o.logits[0, 1:] - o.logits[0, :1])
    assert relative(kernel(model, batch, "margin"), expected) < 1e-12


def test_more_than_two_classes_have_none() -> None:
    with pytest.raises(InputError, match=r"one or two logits and the model has 3"):
        kernel(build("mlp"), tokens(3)["input_ids"][:, :6].double(), "margin")
    Margin().check_task("sst2", 2, opposite=True)
    with pytest.raises(InputError, match="task 'mnli' has 3: use logits or sum"):
        Margin().check_task("mnli", 3, opposite=False)
