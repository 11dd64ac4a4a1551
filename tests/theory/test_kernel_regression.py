import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntk_propulsion.errors import InputError
from ntk_propulsion.theory.kernel_regression import (
    RIDGES,
    choose_ridge,
    ridge_coefficients,
    ridge_predictions,
)
from ntk_propulsion.theory.regression import held_out_predictions
from tests.theory.theory_kernels import example_rows, kernel_pair, seeds

O = 2  # noqa: E741


def split(K, train=7):
    """The kernel of the first examples, and that of the others with them."""
    rows = train * O
    return K[:rows, :rows], K[rows:, :rows]


@given(seeds, st.sampled_from(["psd", "asymmetric"]), st.floats(1e-3, 10))
def test_predictions_are_those_of_the_ridge_equations(seed, kind, ridge):
    K, cross = split(kernel_pair(seed, kind, examples=10)[0])
    y, f0 = np.random.default_rng(seed).normal(size=(2, 7, O))
    f0_other = np.random.default_rng(seed + 1).normal(size=(3, O))
    shifted = K + ridge * np.linalg.norm(K, 2) * np.eye(14)
    expected = f0_other.ravel() + cross @ np.linalg.solve(shifted, (y - f0).ravel())
    predicted = ridge_predictions(K, cross, y, O, ridge=ridge, offset=f0, cross_offset=f0_other)
    np.testing.assert_allclose(predicted, expected.reshape(3, O), atol=1e-8)


@given(seeds, st.floats(1e-2, 10))
def test_the_ridge_solution_minimises_the_penalised_objective(seed, ridge):
    K, _ = kernel_pair(seed, "psd")
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(7, O))
    penalty = ridge * np.linalg.norm(K, 2)

    def objective(c):
        return np.sum((y.ravel() - K @ c) ** 2) + penalty * c @ K @ c

    c = ridge_coefficients(K, y, O, ridge=ridge)[:, 0]
    for size in (1e-3, 1e-1, 1):
        step = size * rng.normal(size=len(c)) * np.linalg.norm(c)
        change = objective(c + step) - objective(c)
        # The objective is quadratic and c its minimum: what is left is the second order.
        second = np.sum((K @ step) ** 2) + penalty * step @ K @ step
        assert change == pytest.approx(second, rel=1e-5)
        assert change > 0


@given(seeds)
def test_a_left_out_example_is_predicted_as_regression_does(seed):
    K, _ = kernel_pair(seed, "psd")
    y, f0 = np.random.default_rng(seed).normal(size=(2, 7, O))
    held_out = held_out_predictions(K, y, O, ridge=0.1, offset=f0)
    out, fit = example_rows([3], O), example_rows([0, 1, 2, 4, 5, 6], O)
    inner = K[np.ix_(fit, fit)]
    others = np.arange(7) != 3
    predicted = ridge_predictions(
        inner,
        K[np.ix_(out, fit)],
        y[others],
        O,
        ridge=0.1 * np.linalg.norm(K, 2) / np.linalg.norm(inner, 2),
        offset=f0[others],
        cross_offset=f0[[3]],
    )
    np.testing.assert_allclose(predicted, held_out[[3]], atol=1e-8)


@pytest.mark.parametrize("kind", ["psd", "asymmetric"])
def test_without_a_ridge_what_can_be_fitted_is(kind):
    K, _ = kernel_pair(0, kind, features=30)
    y = np.random.default_rng(0).normal(size=(7, O))
    np.testing.assert_allclose(ridge_predictions(K, K, y, O, ridge=0), y, atol=1e-8)
    np.testing.assert_allclose(ridge_predictions(K, K, y, O, ridge=1e-12), y, atol=1e-6)


@given(seeds, st.floats(1e-100, 1e100), st.sampled_from([0.0, 1e-3]))
def test_predictions_do_not_see_the_kernels_scale(seed, scale, ridge):
    K, cross = split(kernel_pair(seed, "psd", examples=9, features=30)[0])
    y = np.random.default_rng(seed).normal(size=(7, O))
    plain = ridge_predictions(K, cross, y, O, ridge=ridge)
    scaled = ridge_predictions(scale * K, scale * cross, y, O, ridge=ridge)
    np.testing.assert_allclose(scaled, plain, atol=1e-6)


def test_one_output_takes_any_number_of_targets():
    K, _ = kernel_pair(0, "psd", outputs=1)
    Y = np.random.default_rng(0).normal(size=(7, 3))
    together = ridge_predictions(K[:5, :5], K[5:, :5], Y[:5])
    for column in range(3):
        alone = ridge_predictions(K[:5, :5], K[5:, :5], Y[:5, column])
        np.testing.assert_allclose(together[:, [column]], alone)


def test_classes_are_predicted_from_a_kernel_that_knows_them():
    x = np.linspace(-1, 1, 21)[np.abs(np.linspace(-1, 1, 21)) > 0.35]
    K = np.outer(x, x) + 0.1
    order = np.random.default_rng(0).permutation(len(x))
    train, other = order[:8], order[8:]
    predicted = ridge_predictions(
        K[np.ix_(train, train)], K[np.ix_(other, train)], (x[train] > 0).astype(int)
    )
    np.testing.assert_array_equal(predicted[:, 0] > 0, x[other] > 0)


@pytest.mark.parametrize(("noise", "expected"), [(1e-4, "small"), (3.0, "large")])
def test_the_chosen_ridge_grows_with_the_targets_noise(noise, expected):
    rng = np.random.default_rng(1)
    x = np.sort(rng.uniform(-2, 2, 40))
    K = np.exp(-((x[:, None] - x) ** 2))
    y = np.sin(2 * x) + noise * rng.normal(size=40)
    choice = choose_ridge(K, y, folds=5)
    assert set(choice.errors) == set(RIDGES)
    assert choice.errors[choice.ridge] == min(choice.errors.values())
    assert (choice.ridge <= 1e-4) if expected == "small" else (choice.ridge >= 1e-2)
    by_hand = np.mean((held_out_predictions(K, y, ridge=0.1, folds=5)[:, 0] - y) ** 2)
    assert choice.errors[0.1] == pytest.approx(by_hand)


def test_of_equal_ridges_the_larger_is_chosen():
    y = np.array([1.0, -1.0, 2.0])  # a diagonal kernel predicts nothing of other examples
    assert choose_ridge(np.eye(3), y, ridges=[0.1, 10.0, 1.0]).ridge == 10.0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ridge_coefficients(np.eye(2), [0.5, 1], ridge=-1), "ridge must be at least 0"),
        (lambda: ridge_coefficients(np.zeros((2, 2)), [0.5, 1.0]), "K is zero"),
        (lambda: ridge_coefficients(np.eye(4), np.ones((2, 3)), 2), "3 columns"),
        (lambda: ridge_coefficients(-np.eye(2), [0.5, 1.0], ridge=1.0), "singular at ridge 1"),
        (lambda: ridge_coefficients(np.eye(2), [0.5, 1.0], offset=[1.0]), "offset of shape"),
        (lambda: ridge_predictions(np.eye(2), np.ones((2, 3)), [0.5, 1.0]), "2 training rows"),
        (
            lambda: ridge_predictions(np.eye(2), np.eye(2), [0.5, 1.0], offset=[0.0, 0.0]),
            "or neither",
        ),
        (lambda: choose_ridge(np.eye(2), [0.5, 1.0], ridges=[]), "grid of ridges is empty"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(InputError, match=words):
        call()
