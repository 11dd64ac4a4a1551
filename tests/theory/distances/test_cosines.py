"""The alignment of two kernels."""

import numpy as np
import pytest
from hypothesis import given

from ntk_propulsion.errors import InputError
from ntk_propulsion.theory import distances as d
from tests.theory.theory_kernels import kernel_pair, kinds, seeds

O = 2  # noqa: E741


@given(seeds, kinds)
def test_alignment_lies_in_its_range_and_has_its_distance(seed, kind):
    K, K0 = kernel_pair(seed, kind)
    for measure in (d.alignment(K, K0), d.cka(K, K0, O)):
        assert (0 if kind == "psd" else -1) <= measure <= 1
    assert d.alignment_distance(K, K0) == pytest.approx(1 - d.alignment(K, K0), abs=1e-12)
    assert d.alignment(-K, K0) == pytest.approx(-d.alignment(K, K0), abs=1e-12)


def test_alignment_distance_keeps_its_digits_near_zero():
    rng = np.random.default_rng(0)
    K, E = rng.normal(size=(2, 6, 6))
    E -= K * np.sum(K * E) / np.sum(K * K)
    tiny = 1e-10 * np.linalg.norm(E) / np.linalg.norm(K)
    assert d.alignment_distance(K + 1e-10 * E, K) == pytest.approx(tiny**2 / 2, rel=1e-4)


@given(seeds)
def test_the_angle_between_kernels_obeys_the_triangle_inequality(seed):
    A, B = kernel_pair(seed, "asymmetric")
    C, _ = kernel_pair(seed + 1, "asymmetric")
    angle = lambda K, K0: np.arccos(d.alignment(K, K0))  # noqa: E731
    chord = lambda K, K0: np.sqrt(2 * d.alignment_distance(K, K0))  # noqa: E731
    for distance in (angle, chord):
        assert distance(A, C) <= distance(A, B) + distance(B, C) + 1e-7


def test_asymmetric_kernels_need_the_transpose():
    K = np.array([[0.0, 1.0], [0.0, 0.0]])
    assert d.alignment(K, K) == 1
    assert d.alignment(K, K.T) == np.trace(K @ K) == 0


def test_pair_alignment_ignores_the_diagonal_blocks():
    K, K0 = kernel_pair(0, "psd")
    loud = K + 1e6 * np.kron(np.eye(7), np.ones((O, O)))
    assert d.pair_alignment(loud, K0, O) == pytest.approx(d.pair_alignment(K, K0, O))
    assert d.alignment(loud, K0) != pytest.approx(d.alignment(K, K0))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: d.alignment(np.zeros((2, 2)), np.eye(2)), "K is zero"),
        (
            lambda: d.pair_alignment(np.ones((4, 4)), np.eye(4), O),
            "K0 is zero but for its diagonal",
        ),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(InputError, match=words):
        call()
