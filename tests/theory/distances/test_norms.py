"""Norms and relative errors."""

import numpy as np
import pytest
from hypothesis import given

from ntk_propulsion.errors import InputError
from ntk_propulsion.theory import distances as d
from tests.theory.theory_kernels import kernel_pair, kinds, seeds

O = 2  # noqa: E741


@given(seeds, kinds)
def test_norms_are_those_of_numpy(seed, kind):
    K, _ = kernel_pair(seed, kind)
    expected = {
        "frobenius": np.linalg.norm(K),
        "spectral": np.linalg.norm(K, 2),
        "operator-1": np.abs(K).sum(axis=0).max(),
        "operator-inf": np.abs(K).sum(axis=1).max(),
        "entrywise-1": np.abs(K).sum(),
        "entrywise-inf": np.abs(K).max(),
        3: (np.abs(K) ** 3).sum() ** (1 / 3),
    }
    for name, value in expected.items():
        assert d.norm(K, name) == pytest.approx(value)
        assert d.norm(1e200 * K, name) == pytest.approx(1e200 * value)
    assert set(d.NORMS) < set(expected)
    assert d.norm(np.zeros((2, 2))) == 0


def test_the_relative_error_is_measured_in_the_reference():
    K0 = np.diag([1.0, 3.0])
    assert d.relative_error(2 * K0, K0) == pytest.approx(1)
    assert d.relative_error(K0, 2 * K0) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: d.relative_error(np.eye(2), np.zeros((2, 2))), "K0 is zero"),
        (lambda: d.norm(np.eye(2), "spektral"), "did you mean spectral"),
        (lambda: d.norm(np.eye(2), "operator-3"), "unknown norm"),
        (lambda: d.norm(np.eye(2), 0.5), "p >= 1"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(InputError, match=words):
        call()
