import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ntk_propulsion.errors import InputError
from ntk_propulsion.theory import bounds
from ntk_propulsion.theory import error_budget as e
from ntk_propulsion.theory.distances import compare_kernels
from ntk_propulsion.theory.intervals import bootstrap_intervals
from tests.theory.redrawn import redrawn_kernels
from tests.theory.theory_kernels import kernel_pair, seeds

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
    draws = redrawn_kernels(X, D, sigma2, tau2, degree=degree, draws=20_000, seed=1)
    weight, bias = jacobians(X, D)
    blocks = np.concatenate([np.sqrt(sigma2) * weight, np.sqrt(tau2) * bias[..., None]], axis=2)
    mean, variance = bounds.projection_moments(blocks)
    expected = e.weighted_kernel(parts(X, D, sigma2, tau2), degree)
    np.testing.assert_allclose(expected, degree**2 * mean)
    deviation = degree**2 * np.sqrt(variance / len(draws))
    assert (np.abs(draws.mean(axis=0) - expected) < 5 * deviation).all()
    np.testing.assert_allclose(draws.var(axis=0), degree**4 * variance, rtol=0.15)


def test_redraws_keep_to_their_seed(module):
    first, again = (redrawn_kernels(*module, 1.0, draws=2, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (first[0] != first[1]).any()
    assert (redrawn_kernels(*module, 1.0, draws=2, seed=4) != first).any()


def test_spanned_kernel_adds_weights_and_biases(module):
    weight, bias = jacobians(*module)
    modules = parts(*module, 0.5, 2.0) | {"no bias": e.ModuleKernels(gram(weight), 0.1)}
    np.testing.assert_allclose(e.spanned_kernel(modules), 2 * gram(weight) + gram(bias))
    expected = 9 * (0.6 * gram(weight) + 2 * gram(bias))
    np.testing.assert_allclose(e.weighted_kernel(modules, 3), expected)


def test_budget_finds_the_step_that_errs_and_its_angles_bound_the_total(module):
    modules = parts(*module, 0.3, 0.7)
    spanned, weighted = e.spanned_kernel(modules), e.weighted_kernel(modules)
    redrawn = redrawn_kernels(*module, 0.3, 0.7, draws=8)
    budget = e.error_budget(spanned, spanned, weighted, redrawn, redrawn[0], O)
    assert tuple(budget) == (*e.STEPS, "total", "chance")
    assert budget["coverage"]["best_scale_error"].value == pytest.approx(0, abs=1e-12)
    assert budget["coverage"]["angle"].sd is None
    assert budget["coverage"]["angle"].draws == 0
    assert budget["sampling"]["alignment"].sd > 0
    assert budget["training"]["angle"].min == 0
    one = e.error_budget(spanned, spanned, weighted, redrawn[:1], redrawn[0], O)
    assert one["training"]["alignment"].value == pytest.approx(1)
    assert "chance" not in one
    for each in (budget, one):
        total = sum(each[name]["angle"].value for name in e.STEPS)
        assert each["total"]["angle"].value <= total + 1e-12


def test_equal_variances_make_weighting_a_scale(module):
    modules = parts(*module, 0.25, 0.25)
    spanned, weighted = e.spanned_kernel(modules), e.weighted_kernel(modules, 4)
    budget = e.error_budget(spanned, spanned, weighted, [weighted], weighted, O)
    assert budget["weighting"]["best_scale_error"].value == pytest.approx(0, abs=1e-12)
    assert "relative_frobenius" not in budget["weighting"]
    assert budget["sampling"]["relative_frobenius"].value == 0


@given(seed=seeds, kind=st.sampled_from(["psd", "asymmetric"]))
def test_distances_are_those_of_compare_kernels_and_the_angle_is_of_the_alignment(seed, kind):
    K, K0 = kernel_pair(seed, kind)
    step = e.error_budget(K0, K0, K0, [K], K, O)["sampling"]
    expected = compare_kernels(K, K0, O)
    assert set(step) == set(e.DISTANCES)
    for name in set(step) - {"angle"}:
        assert step[name].value == pytest.approx(expected[name], rel=1e-7, abs=1e-9)
    assert np.cos(step["angle"].value) == pytest.approx(expected["alignment"])


def test_values_are_summed_up_over_redraws(module):
    modules = parts(*module, 0.3, 0.7)
    weighted = e.weighted_kernel(modules)
    redrawn = redrawn_kernels(*module, 0.3, 0.7, draws=5)
    budget = e.error_budget(weighted, weighted, weighted, redrawn, redrawn.mean(0), O)
    for step, pairs in {
        "sampling": [(K, weighted) for K in redrawn],
        "training": [(redrawn.mean(0), K) for K in redrawn],
        "chance": [(redrawn[0], redrawn[1]), (redrawn[2], redrawn[3])],
    }.items():
        values = [compare_kernels(*pair, O)["alignment"] for pair in pairs]
        found = budget[step]["alignment"]
        assert found.value == pytest.approx(np.mean(values))
        assert found.sd == pytest.approx(np.std(values, ddof=1))
        assert found.se == pytest.approx(found.sd / np.sqrt(len(values)))
        assert (found.min, found.max) == pytest.approx((min(values), max(values)))
        assert found.draws == len(values)


def test_intervals_are_the_bootstraps_averaged_over_redraws(module):
    modules = parts(*module, 0.3, 0.7)
    weighted = e.weighted_kernel(modules)
    redrawn = redrawn_kernels(*module, 0.3, 0.7, draws=2)
    plain = e.error_budget(weighted, weighted, weighted, redrawn, redrawn[0], O)
    assert plain["sampling"]["cka"].low is None
    budget = e.error_budget(
        weighted, weighted, weighted, redrawn, redrawn[0], O, resamples=50, seed=4
    )
    names = ["cka", "alignment"]
    each = [
        bootstrap_intervals(K, weighted, O, statistics=names, resamples=50, seed=4) for K in redrawn
    ]
    found = budget["sampling"]
    assert found["cka"].low == pytest.approx(np.mean([i["cka"].low for i in each]))
    assert found["cka"].high == pytest.approx(np.mean([i["cka"].high for i in each]))
    angles = [np.arccos(i["alignment"].high) for i in each]
    assert found["angle"].low == pytest.approx(np.mean(angles))


def test_a_single_module_has_no_coverage_and_its_total_starts_from_its_own_kernel(module):
    modules = parts(*module, 0.3, 0.7)
    spanned, weighted = e.spanned_kernel(modules), e.weighted_kernel(modules)
    redrawn = redrawn_kernels(*module, 0.3, 0.7, draws=2)
    budget = e.error_budget(None, spanned, weighted, redrawn, redrawn[0], O)
    assert "coverage" not in budget
    expected = compare_kernels(redrawn[0], spanned, O)["cka"]
    assert budget["total"]["cka"].value == pytest.approx(expected)


def test_a_distance_that_is_not_defined_is_left_out(module):
    constant = np.ones((N * O, N * O))
    step = e.error_budget(None, constant, constant, [constant], constant, O)["training"]
    assert set(step) == {
        "angle", "alignment", "alignment_distance", "best_scale_error", "relative_frobenius"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda X, D: e.propulsion_kernel(X, D[0], np.ones((D_OUT, D_IN))), "are \\(4, 3, 5\\)"),
        (lambda X, D: e.propulsion_kernel(X, D, np.ones((2, 2))), "does not map 5 to 6"),
        (lambda X, D: e.spanned_kernel({}), "one shape"),
        (lambda X, D: e.error_budget(*[np.eye(2)] * 3, [], np.eye(2)), "at least one redrawn"),
        (lambda X, D: e.error_budget(*[np.eye(2)] * 3, [np.eye(4)], np.eye(2)), "but K0"),
        (lambda X, D: e.error_budget(*[np.eye(2)] * 3, [0 * np.eye(2)], np.eye(2)), "is zero"),
    ],
)
def test_bad_input_is_named(module, call, words):
    with pytest.raises(InputError, match=words):
        call(*module)
