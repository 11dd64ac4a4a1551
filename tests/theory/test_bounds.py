import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ntk_propulsion.errors import InputError
from ntk_propulsion.theory import bounds as b
from tests.theory.theory_kernels import seeds

WIDTH = 768
EPS = 0.2


def failures(energies, eps, draws=200_000, seed=0):
    """Simulated share of draws where sum a_j xi_j**2 / sum a_j leaves 1 -+ eps."""
    rng = np.random.default_rng(seed)
    a = energies / energies.sum()
    errors = [rng.normal(size=(10_000, len(a))) ** 2 @ a - 1 for _ in range(draws // 10_000)]
    return np.mean(np.abs(np.concatenate(errors)) >= eps)


def test_printed_bound_has_its_number():
    assert b.jl_failure(EPS, WIDTH) == pytest.approx(0.0086, abs=5e-5)
    assert b.all_pairs_failure(EPS, WIDTH, 4) == pytest.approx(10 * b.jl_failure(EPS, WIDTH))


@pytest.mark.parametrize(("width", "low"), [(768, 0.0890), (64, 0.371)])
def test_printed_bound_is_vacuous_below_its_threshold(width, low):
    start, end = b.jl_informative_range(width)
    assert start == pytest.approx(low, rel=2e-3)
    assert b.jl_failure(start, width) == pytest.approx(1)
    assert b.jl_failure(end, width) == pytest.approx(1)
    assert b.jl_failure(0.99 * start, width) > 1 > b.jl_failure(1.01 * start, width)


def test_printed_bound_is_vacuous_everywhere_at_small_width():
    assert b.jl_informative_range(37) is None
    assert b.jl_informative_range(38) is not None
    assert b.jl_informative_range(38, pairs=2) is None
    best = min(b.jl_failure(eps, 100) for eps in np.linspace(0.01, 0.99, 99))
    assert b.jl_failure(b.STEEPEST, 100) <= best


@pytest.mark.parametrize("examples", [2, 32, 512])
def test_width_asked_for_is_the_least_that_suffices(examples):
    width = b.jl_width(EPS, examples, 0.05)
    assert b.all_pairs_failure(EPS, width, examples) <= 0.05
    assert b.all_pairs_failure(EPS, width - 1, examples) > 0.05


@pytest.mark.parametrize(("width", "eps"), [(64, 0.45), (200, 0.25), (768, 0.15)])
@pytest.mark.parametrize("cosine", [-1.0, 0.0, 0.6, 1.0])
def test_printed_bound_holds_for_gaussian_rows_and_any_norms(width, eps, cosine):
    # (Wx, Wy) is Gaussian in the plane of x and y: two coordinates are enough.
    rng = np.random.default_rng(0)
    x, y = np.array([3.0, 0.0]), 0.1 * np.array([cosine, math.sqrt(1 - cosine**2)])
    W = rng.normal(size=(4000, width, 2)) / math.sqrt(width)
    errors = np.einsum("swi,i,swj,j->s", W, x, W, y, optimize=True) - x @ y
    failed = np.mean(np.abs(errors) > eps * 3 * 0.1)
    assert failed <= b.jl_failure(eps, width)


def test_coverage_of_a_gaussian_weight_keeps_the_promise_at_any_entry_variance():
    rng = np.random.default_rng(0)
    W, X = 7 * rng.normal(size=(2000, 50)), rng.normal(size=(12, 50)) * np.arange(1, 13)[:, None]
    result = b.inner_product_coverage(W, X, EPS)
    assert result.pairs == b.count_pairs(12) == 78
    assert result.scale == pytest.approx(49, rel=0.05)
    assert result.covered == 1 >= result.promised > 0.99
    assert result.worst <= EPS
    assert 0 < result.promised_all < result.promised


def test_coverage_counts_pairs_and_fails_for_a_low_rank_weight():
    W = np.zeros((100, 2))
    W[:, 0] = 1.0  # mean square 1/2: |Wx|**2 / (d v) is 2 for e1, 0 for e2
    result = b.inner_product_coverage(W, np.eye(2), 0.5)
    assert result.covered == pytest.approx(1 / 3)
    assert result.worst == pytest.approx(1)
    assert b.inner_product_coverage(W, np.eye(2), 0.5, scale=1.0).covered == pytest.approx(2 / 3)


@given(seeds, st.integers(1, 40))
def test_gammas_are_ordered_and_do_not_see_scale(seed, width):
    a = np.random.default_rng(seed).exponential(size=(3, width))
    gamma2, gamma_inf = b.gamma2(a), b.gamma_inf(a)
    assert (gamma_inf >= 1 - 1e-12).all()
    assert (gamma_inf <= gamma2 + 1e-12).all()
    assert (gamma2 <= width + 1e-9).all()
    np.testing.assert_allclose(b.gamma2(1e-90 * a), gamma2)
    np.testing.assert_allclose(b.gamma2(np.ones(width)), width)


def test_flat_gradient_energy_keeps_far_inside_the_printed_bound():
    flat = stats.chi2(WIDTH)
    exact = flat.cdf(WIDTH * (1 - EPS)) + flat.sf(WIDTH * (1 + EPS))
    assert exact == pytest.approx(1e-4, abs=5e-5)
    assert exact < b.jl_failure(EPS, WIDTH)
    assert exact < b.diagonal_failure(EPS, np.ones(WIDTH))


def test_uneven_gradient_energy_breaks_the_printed_bound_but_not_its_own():
    energies = 0.97 ** np.arange(WIDTH)
    simulated = failures(energies, EPS, draws=40_000)
    assert simulated == pytest.approx(0.240, abs=0.01)
    assert simulated > 20 * b.jl_failure(EPS, WIDTH)
    assert simulated <= b.diagonal_failure(EPS, energies)


@pytest.mark.parametrize("decay", [1.0, 0.97, 0.5])
@pytest.mark.parametrize("eps", [0.3, 0.8, 2.0])
def test_diagonal_bound_and_rms_error_hold(decay, eps):
    energies = decay ** np.arange(150)
    assert failures(energies, eps, draws=20_000) <= min(1, b.diagonal_failure(eps, energies))
    rng = np.random.default_rng(1)
    draws = rng.normal(size=(40_000, 150)) ** 2 @ (energies / energies.sum()) - 1
    assert np.sqrt(np.mean(draws**2)) == pytest.approx(b.diagonal_rms_error(energies), rel=0.05)


def test_projection_moments_are_those_of_gaussian_rows():
    rng = np.random.default_rng(0)
    G, G0 = rng.normal(size=(3, 5, 4)), rng.normal(size=(2, 5, 4))
    degree, sigma = 3, 0.2
    W = sigma * rng.normal(size=(60_000, 5, 4))
    J, J0 = (degree * np.einsum("sji,rji->srj", W, part, optimize=True) for part in (G, G0))
    kernels = J @ J0.transpose(0, 2, 1) / (degree**2 * sigma**2)
    mean, variance = b.projection_moments(G, G0, chunk=2)
    np.testing.assert_allclose(mean, G.reshape(3, -1) @ G0.reshape(2, -1).T)
    deviation = np.sqrt(variance / len(W))
    assert (np.abs(kernels.mean(axis=0) - mean) < 5 * deviation).all()
    np.testing.assert_allclose(kernels.var(axis=0), variance, rtol=0.08)


def test_projection_variance_on_the_diagonal_is_the_rms_error():
    G = np.random.default_rng(0).normal(size=(3, 50, 4))
    mean, variance = b.projection_moments(G)
    energies = np.sum(G**2, axis=2)
    relative = np.sqrt(np.diag(variance)) / np.diag(mean)
    np.testing.assert_allclose(relative, b.diagonal_rms_error(energies))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: b.jl_failure(0.0, 10), "eps must lie above 0"),
        (lambda: b.jl_failure(1.0, 10), "below 1"),
        (lambda: b.jl_failure(math.nan, 10), "eps must lie"),
        (lambda: b.jl_failure(0.5, 0), "at least 1"),
        (lambda: b.jl_informative_range(10, 0), "at least 1"),
        (lambda: b.jl_width(0.5, 2, 0.0), "failure must lie"),
        (lambda: b.inner_product_coverage(np.ones((2, 3)), np.ones((2, 2)), 0.5), "does not take"),
        (lambda: b.inner_product_coverage(np.zeros((2, 2)), np.ones((2, 2)), 0.5), "not zero"),
        (lambda: b.inner_product_coverage(np.ones((2, 2)), np.zeros((2, 2)), 0.5), "not zero"),
        (lambda: b.gamma2([0.0, 0.0]), "all zero"),
        (lambda: b.gamma_inf([1.0, -1.0]), "non-negative"),
        (lambda: b.projection_moments(np.ones((2, 3))), "not \\(R, d_out, d_in\\)"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(InputError, match=words):
        call()
