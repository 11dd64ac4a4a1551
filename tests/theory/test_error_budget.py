import numpy as np
import pytest
import torch

from ntk_propulsion.errors import InputError
from ntk_propulsion.theory import bounds
from ntk_propulsion.theory import error_budget as e

N, O, T, D_IN, D_OUT = 4, 2, 3, 5, 6  # noqa: E741


@pytest.fixture
def module():
    rng = np.random.default_rng(0)
    return rng.normal(size=(N, T, D_IN)), rng.normal(size=(N, O, T, D_OUT))


def jacobians(X, D):
    """Blocks of weight (N*O, d_out, d_in) and bias (N*O, d_out)."""
    weight = np.einsum("notj,nti->noji", D, X).reshape(N * O, D_OUT, D_IN)
    return weight, D.sum(axis=2).reshape(N * O, D_OUT)


def gram(J):
    return J.reshape(N * O, -1) @ J.reshape(N * O, -1).T


def parts(X, D, weight_variance, bias_variance):
    weight, bias = jacobians(X, D)
    return {"m": e.ModuleKernels(gram(weight), weight_variance, gram(bias), bias_variance)}


def test_propulsion_kernel_is_that_of_autograd(module):
    X, D = module
    rng = np.random.default_rng(1)
    W, b = rng.normal(size=(D_OUT, D_IN)), rng.normal(size=D_OUT)
    Y = torch.tensor(X @ W.T + b)
    functional = lambda z: torch.einsum("notj,ntj->no", torch.tensor(D), Y * z**7).ravel()  # noqa: E731
    J = torch.func.jacrev(functional)(torch.ones(D_OUT, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(e.propulsion_kernel(X, D, W, b, degree=7), J @ J.T, rtol=1e-10)


def test_propulsion_jacobian_is_the_full_one_projected(module):
    X, D = module
    rng = np.random.default_rng(1)
    W, b = rng.normal(size=(D_OUT, D_IN)), rng.normal(size=D_OUT)
    weight, bias = jacobians(X, D)
    projected = 3 * ((weight * W).sum(axis=2) + bias * b)
    np.testing.assert_allclose(e.propulsion_kernel(X, D, W, b, degree=3), gram(projected))


def test_redraws_have_the_weighted_kernel_as_mean_and_the_exact_variance(module):
    X, D = module
    sigma2, tau2, degree = 0.3, 0.7, 2
    draws = e.redrawn_kernels(X, D, sigma2, tau2, degree=degree, draws=20_000, seed=1)
    weight, bias = jacobians(X, D)
    blocks = np.concatenate([np.sqrt(sigma2) * weight, np.sqrt(tau2) * bias[..., None]], axis=2)
    mean, variance = bounds.projection_moments(blocks)
    expected = e.weighted_kernel(parts(X, D, sigma2, tau2), degree)
    np.testing.assert_allclose(expected, degree**2 * mean)
    deviation = degree**2 * np.sqrt(variance / len(draws))
    assert (np.abs(draws.mean(axis=0) - expected) < 5 * deviation).all()
    np.testing.assert_allclose(draws.var(axis=0), degree**4 * variance, rtol=0.15)


def test_redraws_keep_to_their_seed(module):
    first, again = (e.redrawn_kernels(*module, 1.0, draws=2, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (first[0] != first[1]).any()
    assert (e.redrawn_kernels(*module, 1.0, draws=2, seed=4) != first).any()


def test_spanned_kernel_adds_weights_and_biases(module):
    weight, bias = jacobians(*module)
    modules = parts(*module, 0.5, 2.0) | {"no bias": e.ModuleKernels(gram(weight), 0.1)}
    np.testing.assert_allclose(e.spanned_kernel(modules), 2 * gram(weight) + gram(bias))
    expected = 9 * (0.6 * gram(weight) + 2 * gram(bias))
    np.testing.assert_allclose(e.weighted_kernel(modules, 3), expected)


def test_mean_square_is_about_zero():
    assert e.mean_square(torch.tensor([1.0, 3.0])) == 5


def test_budget_finds_the_step_that_errs_and_its_angles_bound_the_total(module):
    modules = parts(*module, 0.3, 0.7)
    spanned, weighted = e.spanned_kernel(modules), e.weighted_kernel(modules)
    redrawn = e.redrawn_kernels(*module, 0.3, 0.7, draws=8)
    budget = e.error_budget(spanned, spanned, weighted, redrawn, redrawn[0], O)
    assert tuple(budget) == (*e.STEPS, "total")
    assert budget["coverage"].distances["best_scale_error"] == pytest.approx(0, abs=1e-12)
    assert not budget["coverage"].spread
    assert budget["sampling"].spread["alignment"] > 0
    one = e.error_budget(spanned, spanned, weighted, redrawn[:1], redrawn[0], O)
    assert one["training"].distances["alignment"] == pytest.approx(1)
    angles = {name: np.arccos(min(1, one[name].distances["alignment"])) for name in one}
    assert angles["total"] <= sum(angles[name] for name in e.STEPS) + 1e-7


def test_equal_variances_make_weighting_a_scale(module):
    modules = parts(*module, 0.25, 0.25)
    spanned, weighted = e.spanned_kernel(modules), e.weighted_kernel(modules, 4)
    budget = e.error_budget(spanned, spanned, weighted, [weighted], weighted, O)
    assert budget["weighting"].distances["best_scale_error"] == pytest.approx(0, abs=1e-12)
    assert budget["weighting"].distances["best_scale"] == pytest.approx(1 / 4)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda X, D: e.propulsion_kernel(X, D[0], np.ones((D_OUT, D_IN))), "are \\(4, 3, 5\\)"),
        (lambda X, D: e.propulsion_kernel(X, D, np.ones((2, 2))), "does not map 5 to 6"),
        (lambda X, D: e.redrawn_kernels(X, D, -1.0), "variances of 0 or more"),
        (lambda X, D: e.spanned_kernel({}), "one shape"),
        (lambda X, D: e.error_budget(*[np.eye(2)] * 3, [], np.eye(2)), "at least one redrawn"),
    ],
)
def test_bad_input_is_named(module, call, words):
    with pytest.raises(InputError, match=words):
        call(*module)
