"""CKA and its unbiased estimate, against other ways to write them."""

import numpy as np
import pytest
from hypothesis import given

from ntk_propulsion.errors import InputError
from ntk_propulsion.theory import distances as d
from tests.theory.theory_kernels import kernel_pair, kinds, seeds

O = 2  # noqa: E741


def direct_centring(examples, outputs):
    H = np.eye(examples) - np.ones((examples, examples)) / examples
    return np.kron(H, np.eye(outputs))


@given(seeds, kinds)
def test_cka_is_the_alignment_after_direct_centring_over_examples(seed, kind):
    K, K0 = kernel_pair(seed, kind)
    left, right = (direct_centring(size // O, O) for size in K.shape)
    np.testing.assert_allclose(d.centre(K, O), left @ K @ right, atol=1e-10)
    assert d.cka(K, K0, O) == pytest.approx(d.alignment(left @ K @ right, left @ K0 @ right))
    np.testing.assert_allclose(d.centre(d.centre(K, O), O), d.centre(K, O), atol=1e-10)


@given(seeds)
def test_cka_is_the_normalised_hsic(seed):
    K, K0 = kernel_pair(seed, "psd")
    H = direct_centring(len(K) // O, O)
    hsic = lambda A, B: np.trace(A @ H @ B @ H) / (len(A) - 1) ** 2  # noqa: E731
    direct = hsic(K, K0) / np.sqrt(hsic(K, K) * hsic(K0, K0))
    assert d.cka(K, K0, O) == pytest.approx(direct, abs=1e-10)


@given(seeds)
def test_linear_cka_equals_kornbliths_feature_form(seed):
    rng = np.random.default_rng(seed)
    X, Y = rng.normal(size=(9, 4)) + 1, rng.normal(size=(9, 5)) - 2
    Y[:, 0] += X[:, 0]
    x, y = X - X.mean(axis=0), Y - Y.mean(axis=0)
    direct = np.linalg.norm(y.T @ x) ** 2 / np.linalg.norm(x.T @ x) / np.linalg.norm(y.T @ y)
    assert d.cka(X @ X.T, Y @ Y.T) == pytest.approx(direct)


@given(seeds)
def test_cka_does_not_see_a_shift_of_features_and_centring_over_rows_is_another_thing(seed):
    rng = np.random.default_rng(seed)
    F, G = rng.normal(size=(2, 8, O, 6))
    shifted = (F + rng.normal(size=(1, O, 6))).reshape(8 * O, 6)
    F, G = F.reshape(8 * O, 6), G.reshape(8 * O, 6)
    K0 = G @ G.T
    assert d.cka(shifted @ shifted.T, K0, O) == pytest.approx(d.cka(F @ F.T, K0, O))
    assert abs(d.cka(shifted @ shifted.T, K0, 1) - d.cka(F @ F.T, K0, 1)) > 1e-6


@given(seeds)
def test_unbiased_cka_is_songs_estimator(seed):
    K, K0 = kernel_pair(seed, "psd", examples=8, outputs=1)
    n = len(K)

    def song(A, B):
        A, B = A - np.diag(np.diag(A)), B - np.diag(np.diag(B))
        one = np.ones(n)
        last = 2 / (n - 2) * one @ A @ B @ one
        total = (one @ A @ one) * (one @ B @ one) / ((n - 1) * (n - 2))
        return (np.trace(A @ B) + total - last) / (n * (n - 3))

    direct = song(K, K0) / np.sqrt(song(K, K) * song(K0, K0))
    assert d.unbiased_cka(K, K0) == pytest.approx(direct, abs=1e-10)


def test_unbiased_cka_of_unrelated_kernels_is_near_zero_where_cka_is_not():
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(20):
        F, G = rng.normal(size=(2, 16, 400))
        draws.append((d.cka(F @ F.T, G @ G.T), d.unbiased_cka(F @ F.T, G @ G.T)))
    biased, unbiased = np.mean(draws, axis=0)
    assert biased > 0.9
    assert abs(unbiased) < 0.1


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: d.unbiased_cka(*kernel_pair(0, "psd", examples=3), O), "at least 4"),
        (lambda: d.cka(np.ones((4, 4)), np.eye(4)), "K is zero after centring"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(InputError, match=words):
        call()
