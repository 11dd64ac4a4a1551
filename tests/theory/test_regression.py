import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntk_propulsion.errors import InputError
from ntk_propulsion.theory import regression as r
from ntk_propulsion.theory.distances import alignment, cka
from tests.theory.theory_kernels import example_rows, kernel_pair, seeds

O = 2  # noqa: E741


def refitted(K, Y, outputs, ridge, held_out):
    """Predictions for held-out examples, from a fit on the others."""
    n = len(K) // outputs
    out = example_rows(held_out, outputs)
    fit = np.setdiff1d(np.arange(n * outputs), out)
    y = Y.reshape(n * outputs, -1)
    A = K[np.ix_(fit, fit)] + ridge * np.linalg.norm(K, 2) * np.eye(len(fit))
    return (K[np.ix_(out, fit)] @ np.linalg.solve(A, y[fit])).reshape(len(held_out), -1)


@given(seeds, st.sampled_from(["psd", "asymmetric"]), st.sampled_from([1, 2]))
def test_leave_one_out_in_closed_form_equals_refitting(seed, kind, outputs):
    K, _ = kernel_pair(seed, kind, outputs=outputs)
    Y = np.random.default_rng(seed).normal(size=(7, outputs))
    predictions = r.held_out_predictions(K, Y, outputs, ridge=0.5)
    direct = np.vstack([refitted(K, Y, outputs, 0.5, [i]) for i in range(7)])
    np.testing.assert_allclose(predictions, direct, rtol=1e-6, atol=1e-8)


def test_folds_in_closed_form_equal_refitting():
    K, _ = kernel_pair(3, "psd")
    Y = np.random.default_rng(3).normal(size=(7, O))
    predictions = r.held_out_predictions(K, Y, O, ridge=0.1, folds=3, seed=5)
    for members in r._folds(7, 3, 5):
        np.testing.assert_allclose(predictions[members], refitted(K, Y, O, 0.1, members))


@given(seeds, st.floats(1e-100, 1e100))
def test_predictions_do_not_see_the_kernels_scale(seed, scale):
    K, _ = kernel_pair(seed, "psd")
    Y = np.random.default_rng(seed).normal(size=(7, O))
    plain = r.held_out_predictions(K, Y, O)
    np.testing.assert_allclose(r.held_out_predictions(scale * K, Y, O), plain, atol=1e-8)


def test_an_offset_is_added_to_a_fit_of_the_residual():
    K, _ = kernel_pair(0, "psd")
    Y, f0 = np.random.default_rng(0).normal(size=(2, 7, O))
    with_offset = r.held_out_predictions(K, Y, O, offset=f0)
    np.testing.assert_allclose(with_offset, f0 + r.held_out_predictions(K, Y - f0, O))


def test_a_multiple_of_a_kernel_predicts_the_same_classes():
    K, _ = kernel_pair(0, "psd")
    Y = np.eye(O)[[0, 1, 0, 1, 0, 1, 1]]
    own, other = (r.held_out_predictions(k, Y, O) for k in (K, 40 * K))
    np.testing.assert_allclose(own, other, atol=1e-8)


def test_a_kernel_that_knows_the_target_predicts_it():
    rng = np.random.default_rng(0)
    x = rng.normal(size=40)
    noise = rng.normal(size=(40, 40))
    kernels = np.outer(x, x) + 0.01 * np.eye(40), noise @ noise.T
    Y = 3 * x[:, None]
    left = [np.sum((r.held_out_predictions(K, Y, 1, folds=5) - Y) ** 2) for K in kernels]
    assert left[0] < 0.1 * np.sum(Y**2)
    assert left[1] > 0.5 * np.sum(Y**2)


@given(seeds)
def test_target_alignment_is_the_rayleigh_quotient(seed):
    K, _ = kernel_pair(seed, "psd")
    Y = np.random.default_rng(seed).normal(size=(7, O))
    y = Y.ravel()
    direct = y @ K @ y / (np.linalg.norm(K) * (y @ y))
    assert r.target_alignment(K, Y, O) == pytest.approx(direct)
    assert 0 <= r.target_alignment(K, Y, O, centred=True) <= 1
    target = np.outer(y, y)
    assert r.target_alignment(K, Y, O, centred=True) == pytest.approx(cka(K, target, O))


def test_one_output_meets_the_class_kernel():
    labels = np.array([0, 1, 2, 1, 0])
    one_hot = np.eye(3)[labels]
    shared = (labels[:, None] == labels).astype(float)
    K, _ = kernel_pair(0, "psd", examples=5, outputs=1)
    assert r.target_alignment(K, one_hot) == pytest.approx(alignment(K, shared))
    assert r.target_alignment(shared, one_hot) == pytest.approx(1)


def test_outputs_sum_to_the_kernel_of_examples():
    F = np.random.default_rng(0).normal(size=(5, 3, 4))
    K = F.reshape(15, 4) @ F.reshape(15, 4).T
    np.testing.assert_allclose(r.sum_outputs(K, 3), np.einsum("iod,jod->ij", F, F))


@pytest.mark.parametrize(
    ("targets", "outputs", "expected", "classes"),
    [
        ([0, 1, 1], 2, [[1, 0], [0, 1], [0, 1]], True),
        ([0, 1, 1], 1, [[-1], [1], [1]], True),
        ([True, False, True], 1, [[1], [-1], [1]], True),
        ([0, 1, 2], 1, [[0], [1], [2]], False),
        ([0.5, 1, 2], 1, [[0.5], [1], [2]], False),
        ([[1, 0], [0, 1], [1, 0]], 2, [[1, 0], [0, 1], [1, 0]], True),
        ([[0.5, 0], [0, 1], [1, 0]], 2, [[0.5, 0], [0, 1], [1, 0]], False),
    ],
)
def test_targets_become_columns(targets, outputs, expected, classes):
    Y, found = r.as_targets(targets, 3, outputs)
    np.testing.assert_array_equal(Y, expected)
    assert found == classes


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: r.as_targets([0, 1], 3), "do not fit 3 examples"),
        (lambda: r.as_targets([0, 3, 1], 3, 2), "classes run from 0 to 3"),
        (lambda: r.as_targets([0.0, np.nan], 2), "targets has 1 NaN"),
        (lambda: r.target_alignment(np.eye(2), [0.0, 0.0]), "nothing to align"),
        (lambda: r.target_alignment(np.eye(2), [1.5, 1.5], centred=True), "nothing to align"),
        (lambda: r.target_alignment(np.eye(4), np.ones((2, 3)), 2), "3 columns"),
        (lambda: r.held_out_predictions(np.eye(2), [0.0, 1.0], ridge=0), "ridge must be above"),
        (lambda: r.held_out_predictions(np.eye(2), [0.0, 1.0], folds=3), "held out in 3 folds"),
        (lambda: r.held_out_predictions(np.zeros((2, 2)), [0.0, 1.0]), "K is zero"),
        (lambda: r.held_out_predictions(np.ones((2, 3)), [0.0, 1.0]), "must be square"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(InputError, match=words):
        call()
