"""The best scale, and what is wrong after it."""

import numpy as np
import pytest
from hypothesis import given

from ntk_propulsion.errors import InputError
from ntk_propulsion.theory import distances as d
from tests.theory.theory_kernels import kernel_pair, kinds, seeds

O = 2  # noqa: E741


@given(seeds, kinds)
def test_best_scale_error_is_sqrt_one_minus_alignment_squared(seed, kind):
    K, K0 = kernel_pair(seed, kind)
    error = d.best_scale_error(K, K0)
    assert error == pytest.approx(np.sqrt(1 - d.alignment(K, K0) ** 2), abs=1e-7)
    assert error == pytest.approx(d.best_scale_error(K0, K), abs=1e-12)
    best = d.best_scale(K, K0)
    assert error == pytest.approx(d.relative_error(best * K, K0), abs=1e-12)
    for nearby in (0.99 * best, 1.01 * best, 1.0):
        assert error <= d.relative_error(nearby * K, K0) + 1e-12


def test_factors_have_their_direction():
    K0 = np.diag([1.0, 3.0])
    assert d.trace_ratio(K0, 5 * K0) == pytest.approx(5)
    assert d.best_scale(K0, 5 * K0) == pytest.approx(5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: d.trace_ratio(np.ones((2, 3)), np.ones((2, 3))), "must be square"),
        (lambda: d.trace_ratio(np.diag([1.0, -1.0]), np.eye(2)), "trace 0"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(InputError, match=words):
        call()
