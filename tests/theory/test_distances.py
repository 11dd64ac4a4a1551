import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ntk_propulsion.errors import InputError
from ntk_propulsion.theory import distances as d
from tests.theory.theory_kernels import example_rows, kernel_pair, kinds, seeds

SCALE_FREE = ["alignment", "alignment_distance", "best_scale_error", "cka"]
SAME_EXAMPLES = ["pair_alignment", "unbiased_cka"]
O = 2  # noqa: E741


def direct_centring(examples, outputs):
    H = np.eye(examples) - np.ones((examples, examples)) / examples
    return np.kron(H, np.eye(outputs))


def orthogonal(rng, size):
    return np.linalg.qr(rng.normal(size=(size, size)))[0]


@given(seeds, kinds, st.floats(1e-120, 1e120), st.floats(1e-120, 1e120))
def test_scale_free_distances_do_not_see_scale(seed, kind, s, s0):
    K, K0 = kernel_pair(seed, kind)
    names = SCALE_FREE + (SAME_EXAMPLES if kind != "cross" else [])
    plain = d.compare_kernels(K, K0, O, norms=())
    scaled = d.compare_kernels(s * K, s0 * K0, O, norms=())
    for name in names:
        assert scaled[name] == pytest.approx(plain[name], abs=1e-12)
    assert scaled["best_scale"] == pytest.approx(plain["best_scale"] * s0 / s)


@given(seeds, kinds)
def test_no_distance_sees_the_order_of_examples(seed, kind):
    K, K0 = kernel_pair(seed, kind)
    rng = np.random.default_rng(seed)
    left = rng.permutation(K.shape[0] // O)
    right = left if kind != "cross" else rng.permutation(K.shape[1] // O)
    index = np.ix_(example_rows(left, O), example_rows(right, O))
    before, after = d.compare_kernels(K, K0, O), d.compare_kernels(K[index], K0[index], O)
    assert after == pytest.approx(before, rel=1e-9, abs=1e-12)


@given(seeds, kinds)
def test_frobenius_distances_do_not_see_an_orthogonal_change_of_rows(seed, kind):
    K, K0 = kernel_pair(seed, kind)
    rng = np.random.default_rng(seed)
    U, V = orthogonal(rng, K.shape[0]), orthogonal(rng, K.shape[1])
    for function in (d.alignment, d.alignment_distance, d.best_scale_error, d.relative_error):
        assert function(U @ K @ V, U @ K0 @ V) == pytest.approx(function(K, K0), abs=1e-10)
    # Centring and blocks are about examples: a change of outputs is what they do not see.
    Q = orthogonal(rng, O)
    left, right = (np.kron(np.eye(size // O), Q) for size in K.shape)
    changed = d.compare_kernels(left @ K @ right.T, left @ K0 @ right.T, O, norms=())
    assert changed == pytest.approx(d.compare_kernels(K, K0, O, norms=()), abs=1e-10)


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


@given(seeds)
def test_u_centring_projects_on_zero_diagonal_and_zero_sums(seed):
    K, K0 = kernel_pair(seed, "asymmetric")
    U = d.u_centre(K, O).reshape(7, O, 7, O)
    assert np.abs(U.sum(axis=0)).max() < 1e-9
    assert np.abs(U.sum(axis=2)).max() < 1e-9
    assert not np.einsum("iojp,ij->iop", U, np.eye(7)).any()
    np.testing.assert_allclose(d.u_centre(U.reshape(14, 14), O), U.reshape(14, 14), atol=1e-10)
    residual = K - d.u_centre(K, O)
    assert abs(np.sum(residual * d.u_centre(K0, O))) < 1e-8


def test_unbiased_cka_of_unrelated_kernels_is_near_zero_where_cka_is_not():
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(20):
        F, G = rng.normal(size=(2, 16, 400))
        draws.append((d.cka(F @ F.T, G @ G.T), d.unbiased_cka(F @ F.T, G @ G.T)))
    biased, unbiased = np.mean(draws, axis=0)
    assert biased > 0.9
    assert abs(unbiased) < 0.1


def test_pair_alignment_ignores_the_diagonal_blocks():
    K, K0 = kernel_pair(0, "psd")
    loud = K + 1e6 * np.kron(np.eye(7), np.ones((O, O)))
    assert d.pair_alignment(loud, K0, O) == pytest.approx(d.pair_alignment(K, K0, O))
    assert d.alignment(loud, K0) != pytest.approx(d.alignment(K, K0))


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


def test_relative_error_and_trace_ratio_have_their_direction():
    K0 = np.diag([1.0, 3.0])
    assert d.relative_error(2 * K0, K0) == pytest.approx(1)
    assert d.relative_error(K0, 2 * K0) == pytest.approx(0.5)
    assert d.trace_ratio(K0, 5 * K0) == pytest.approx(5)
    assert d.best_scale(K0, 5 * K0) == pytest.approx(5)


def test_compare_kernels_leads_with_the_scale_free_and_takes_tensors():
    K, K0 = kernel_pair(1, "psd")
    result = d.compare_kernels(torch.tensor(K), torch.tensor(K0), O)
    assert list(result)[:6] == SCALE_FREE + SAME_EXAMPLES
    assert result == pytest.approx(d.compare_kernels(K, K0, O))
    assert all(isinstance(value, float) for value in result.values())


def test_equal_kernels_are_at_distance_zero():
    K, _ = kernel_pair(1, "psd")
    result = d.compare_kernels(K, K, O)
    for name, value in result.items():
        zero = name.startswith("relative") or name in ("alignment_distance", "best_scale_error")
        assert value == pytest.approx(0 if zero else 1, abs=1e-12)


def test_square_cross_kernels_have_no_diagonal_measures():
    K, K0 = kernel_pair(0, "asymmetric")
    result = d.compare_kernels(K, K0, O, same_examples=False)
    assert not {"pair_alignment", "unbiased_cka", "trace_ratio"} & set(result)
    with pytest.raises(InputError, match="other examples in its columns"):
        d.compare_kernels(*kernel_pair(0, "cross"), O, same_examples=True)


def test_a_kernel_that_is_the_same_for_all_examples_has_no_cka():
    bias = np.kron(np.ones((5, 5)), np.array([[2.0, 0.1], [0.1, 1.0]])) / 3
    result = d.compare_kernels(bias, np.eye(10), O)
    assert "cka" not in result
    assert "alignment" in result
    with pytest.raises(InputError, match="K is zero after centring"):
        d.cka(bias, np.eye(10), O)
    with pytest.raises(InputError, match="K0 is zero but for its diagonal"):
        d.pair_alignment(bias, np.eye(10), O)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: d.alignment(np.zeros((2, 2)), np.eye(2)), "K is zero"),
        (lambda: d.compare_kernels(np.eye(2), np.zeros((2, 2))), "K0 is zero"),
        (lambda: d.relative_error(np.eye(2), np.zeros((2, 2))), "K0 is zero"),
        (lambda: d.norm(np.eye(2), "spektral"), "did you mean spectral"),
        (lambda: d.norm(np.eye(2), "operator-3"), "unknown norm"),
        (lambda: d.norm(np.eye(2), 0.5), "p >= 1"),
        (lambda: d.trace_ratio(np.ones((2, 3)), np.ones((2, 3))), "must be square"),
        (lambda: d.trace_ratio(np.diag([1.0, -1.0]), np.eye(2)), "trace 0"),
        (lambda: d.unbiased_cka(*kernel_pair(0, "psd", examples=3), O), "at least 4"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(InputError, match=words):
        call()
