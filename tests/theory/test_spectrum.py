import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntk_propulsion.errors import InputError
from ntk_propulsion.theory import spectrum as s
from tests.theory.theory_kernels import kernel_pair, kinds, seeds


@given(seeds, kinds)
def test_spectrum_is_of_eigenvalues_or_singular_values_largest_first(seed, kind):
    K, _ = kernel_pair(seed, kind)
    direct = np.linalg.eigvalsh(K)[::-1] if kind == "psd" else np.linalg.svd(K)[1]
    np.testing.assert_allclose(s.spectrum(K), direct, atol=1e-9)


def test_a_symmetric_kernel_keeps_its_negative_eigenvalues():
    np.testing.assert_allclose(s.spectrum(np.diag([1.0, -2.0])), [1, -2])
    assert not s.is_symmetric_psd(np.diag([1.0, -2.0]))


@given(seeds)
def test_participation_ratio_is_trace_squared_over_squared_norm(seed):
    K, _ = kernel_pair(seed, "psd")
    direct = np.trace(K) ** 2 / np.linalg.norm(K) ** 2
    assert s.participation_ratio(K) == pytest.approx(direct)


@given(seeds, kinds, st.floats(1e-100, 1e100))
def test_ranks_do_not_see_scale_and_are_ordered(seed, kind, scale):
    K, _ = kernel_pair(seed, kind)
    small, large = s.participation_ratio(K), s.entropy_rank(K)
    assert 1 - 1e-9 <= small <= large + 1e-9
    assert large <= np.linalg.matrix_rank(K) + 1e-6
    assert s.participation_ratio(scale * K) == pytest.approx(small)
    assert s.entropy_rank(scale * K) == pytest.approx(large)


def test_flat_and_rank_one_spectra_have_their_ranks():
    flat = s.describe_spectrum(3 * np.eye(6))
    assert flat == pytest.approx(
        {
            "participation_ratio": 6,
            "entropy_rank": 6,
            "top_share": 1 / 6,
            "condition_number": 1,
            "trace": 18,
        }
    )
    one = np.outer(np.arange(1.0, 4), np.arange(1.0, 4))
    assert s.participation_ratio(one) == pytest.approx(1)
    assert s.entropy_rank(one) == pytest.approx(1)
    assert s.condition_number(one, rtol=1e-12) == np.inf


def test_known_spectrum_gives_shares_tail_and_condition_number():
    K = np.diag([5.0, 3.0, 2.0])
    np.testing.assert_allclose(s.shares(K), [0.5, 0.3, 0.2])
    np.testing.assert_allclose(s.tail(K), [0.5, 0.2, 0.0])
    assert s.top_share(K, 2) == pytest.approx(0.8)
    assert s.condition_number(K) == pytest.approx(2.5)
    assert s.condition_number(K, rtol=0.5) == np.inf
    assert s.entropy_rank(K) == pytest.approx(np.exp(-np.sum(s.shares(K) * np.log(s.shares(K)))))


@given(seeds)
def test_rounding_passes_for_symmetric_and_psd_but_more_does_not(seed):
    K, _ = kernel_pair(seed, "psd")
    noise = np.random.default_rng(seed).normal(size=K.shape)
    noise *= np.linalg.norm(K, 2) / np.linalg.norm(noise)
    assert s.is_symmetric_psd(K)
    assert s.is_symmetric_psd(K + 3e-7 * noise)
    assert not s.is_symmetric(K + 1e-2 * noise)
    shifted = K - 1e-2 * np.linalg.norm(K, 2) * np.eye(len(K))
    assert s.is_symmetric(shifted)
    assert not s.is_symmetric_psd(shifted)


def test_asymmetry_has_its_extremes():
    assert s.asymmetry(np.eye(2)) == 0
    assert s.asymmetry(np.array([[0.0, 1.0], [-1.0, 0.0]])) == pytest.approx(2)
    assert not s.is_symmetric(np.ones((2, 3)))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: s.participation_ratio(np.zeros((2, 2))), "K is zero"),
        (lambda: s.top_share(np.eye(2), 0), "k >= 1"),
        (lambda: s.trace(np.ones((2, 3))), "must be square"),
        (lambda: s.spectrum(np.full((2, 2), np.nan)), "NaN"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(InputError, match=words):
        call()
