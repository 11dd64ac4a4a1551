"""The sum of the logits."""

from __future__ import annotations

import pytest

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.outputs import Sum
from tests.architectures import build, tokens
from tests.kernels.oracle import relative
from tests.kernels.outputs.hand import by_hand, kernel


def test_sum_is_over_the_root_of_the_number_of_logits() -> None:
    model, batch = build("bert"), tokens(3)
    expected = by_hand(model, batch, lambda o, n: o.logits.sum(1) / 2**0.5)
    assert relative(kernel(model, batch, "sum"), expected) < 1e-12


def test_the_sum_of_opposite_logits_is_constant_and_refused() -> None:
    Sum().check_task("sst2", 2, opposite=False)
    Sum().check_task("mnli", 3, opposite=True)
    with pytest.raises(InputError, match="logits are opposite: use logits or margin"):
        Sum().check_task("sst2", 2, opposite=True)
