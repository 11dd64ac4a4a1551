"""Concentration bounds of Theorem 1: the printed one, and those that hold for Propulsion itself.

Failure probabilities are returned as the formula gives them: a value of 1 or more is vacuous, it
says nothing. `numpy.minimum(1, .)` makes a probability of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from ntk_propulsion.errors import InputError
from ntk_propulsion.theory.inputs import Array, as_array

STEEPEST = 2 / 3  # where eps**2 - eps**3 peaks, at 4/27


def jl_failure(eps: float, width: int) -> float:
    """Return the printed bound's failure probability, 4 exp(-(eps**2 - eps**3) d / 4).

    Propulsion (arXiv 2409.10927), Theorem 1, in the form that holds: for W (d x d_in) with i.i.d.
    N(0, 1/d) entries and *one fixed pair* x, y independent of W, abs((Wx)'(Wy) - x'y) exceeds
    eps |x| |y| with at most this probability. The paper prints it for unit-norm inputs; for others
    the error scales with both norms. All pairs at once: `all_pairs_failure`.

    The exponent peaks at eps = 2/3 and falls back to 0 at eps = 1. Failing at a larger eps is the
    rarer event, so above 2/3 the value at 2/3 holds too and is the better one; it is not used here.

    Args:
        eps: Relative error, 0 < eps < 1.
        width: d, the number of rows of W.

    Raises:
        InputError: For eps outside (0, 1) or width < 1.
    """
    _check_eps(eps, below=1)
    if width < 1:
        raise InputError(f"a width is at least 1, not {width}")
    return 4 * math.exp(-(eps**2 - eps**3) * width / 4)


def jl_informative_range(width: int, pairs: int = 1) -> tuple[float, float] | None:
    """Return the eps between which the printed bound, over so many pairs, lies below 1.

    Outside it the bound is vacuous. At one pair: below 0.0890 for d = 768, below 0.371 for d = 64.

    Returns:
        Both ends, or None where the bound is vacuous for every eps (d <= 37 for one pair).

    Raises:
        InputError: For width < 1 or pairs < 1.
    """
    if pairs < 1:
        raise InputError(f"the number of pairs is at least 1, not {pairs}")
    if pairs * jl_failure(STEEPEST, width) >= 1:
        return None

    def log_failure(eps: float) -> float:
        return math.log(4 * pairs) - (eps**2 - eps**3) * width / 4

    return brentq(log_failure, 0, STEEPEST), brentq(log_failure, STEEPEST, 1)


def count_pairs(examples: int) -> int:
    """Return the number of unordered pairs of examples, those with themselves included."""
    return examples * (examples + 1) // 2


def all_pairs_failure(eps: float, width: int, examples: int) -> float:
    """Return the printed bound for all pairs of N examples at once, by a union bound.

    N (N + 1) / 2 times `jl_failure`: the kernel is symmetric, so N**2 pairs are not needed.
    """
    return count_pairs(examples) * jl_failure(eps, width)


def jl_width(eps: float, examples: int, failure: float = 0.05) -> int:
    """Return the least width at which all pairs keep to eps with probability 1 - failure.

    Raises:
        InputError: For eps or failure outside (0, 1).
    """
    _check_eps(eps, below=1)
    _check_eps(failure, below=1, name="failure")
    return math.ceil(4 * math.log(4 * count_pairs(examples) / failure) / (eps**2 - eps**3))


@dataclass(frozen=True)
class Coverage:
    """How a weight keeps the inner products of given inputs.

    Attributes:
        eps: The relative error asked about.
        pairs: Number of pairs of inputs, each with itself included.
        covered: Share of pairs with abs((Wx)'(Wy) / (d v) - x'y) <= eps |x| |y|.
        worst: The largest relative error of all pairs.
        scale: v, the entry variance that the weight was divided by.
        promised: 1 - `jl_failure`, at least 0: the share expected under the bound. Gaussian
            weights independent of the inputs reach it on average; others need not.
        promised_all: 1 - `all_pairs_failure`, at least 0: the probability that covered is 1.
    """

    eps: float
    pairs: int
    covered: float
    worst: float
    scale: float
    promised: float
    promised_all: float


def inner_product_coverage(
    weight: ArrayLike, inputs: ArrayLike, eps: float, scale: float | None = None
) -> Coverage:
    """Return how many of all pairs of inputs keep their inner product under a weight.

    A trained weight has no N(0, 1/d) entries, so it is normalised: W / sqrt(d v), with v the mean
    square of its entries unless a scale is given. For W with i.i.d. entries of variance v that is
    the claim's setting. Biases have no part in it.

    Args:
        weight: W (d, d_in), as in y = W x.
        inputs: (N, d_in), none of them zero.
        eps: Relative error, 0 < eps < 1.
        scale: v; by default mean(W**2).

    Raises:
        InputError: For shapes that do not fit, a zero weight or input, eps outside (0, 1).
    """
    W, X = as_array(weight, "the weight"), as_array(inputs, "inputs")
    if W.ndim != 2 or X.ndim != 2 or W.shape[1] != X.shape[1]:
        raise InputError(f"a weight of shape {W.shape} does not take inputs of shape {X.shape}")
    variance = float(np.mean(W**2)) if scale is None else float(scale)
    norms = np.linalg.norm(X, axis=1, keepdims=True)
    if not variance > 0 or not (norms > 0).all():
        raise InputError("the inner-product claim needs a weight and inputs that are not zero")
    unit = X / norms
    mapped = unit @ W.T
    errors = np.abs(mapped @ mapped.T / (len(W) * variance) - unit @ unit.T)
    errors = errors[np.triu_indices(len(X))]
    return Coverage(
        eps=eps,
        pairs=len(errors),
        covered=float(np.mean(errors <= eps)),
        worst=float(errors.max()),
        scale=variance,
        promised=max(0.0, 1 - jl_failure(eps, len(W))),
        promised_all=max(0.0, 1 - all_pairs_failure(eps, len(W), len(X))),
    )


def gamma2(energies: ArrayLike) -> Array:
    """Return |a|_1**2 / |a|_2**2, the effective number of neurons, between 1 and d_out.

    Park, Yap, Rozell, Wakin (IEEE TSP 2011), for block-diagonal random matrices.

    Examples:
        >>> gamma2(np.ones(768)), gamma2([1, 0, 0])
        (array(768.), array(1.))

    Args:
        energies: a_j = |G_j|**2 with G_j row j of a Jacobian block (d_out x d_in), shape
            (..., d_out), non-negative, not all zero. Where weight and bias differ in variance,
            a_j = sigma_w**2 |G_j|**2 + sigma_b**2 g_j**2.

    Returns:
        Shape (...).

    Raises:
        InputError: For negative energies, or rows of zeros.
    """
    shares = _energy_shares(energies)
    return np.asarray(1 / np.sum(shares**2, axis=-1))


def gamma_inf(energies: ArrayLike) -> Array:
    """Return |a|_1 / |a|_inf, at least 1 and at most `gamma2`. Arguments as there."""
    return np.asarray(1 / _energy_shares(energies).max(axis=-1))


def diagonal_failure(eps: float, energies: ArrayLike) -> Array:
    """Return the bound 2 exp(-min(eps**2 Gamma2 / 16, eps GammaInf / 4)) for a diagonal entry.

    For one module with weights N(0, sigma**2) independent of the gradients, it bounds the
    probability that K_P[r, r] / (k**2 sigma**2) leaves K_W[r, r] (1 -+ eps): a weighted sum of
    chi-squared variables (Laurent and Massart 2000, lemma 1).

    Args:
        eps: Relative error, above 0.
        energies: As for `gamma2`.
    """
    _check_eps(eps)
    return 2 * np.exp(-_exponent(eps, gamma2(energies), gamma_inf(energies)))


def diagonal_rms_error(energies: ArrayLike) -> Array:
    """Return sqrt(2 / Gamma2): the exact relative r.m.s. error of a diagonal entry."""
    return np.sqrt(2 / gamma2(energies))


def projection_moments(
    G: ArrayLike, G0: ArrayLike | None = None, *, chunk: int = 64
) -> tuple[Array, Array]:
    """Return mean and variance of K_P / (k**2 sigma**2) under Gaussian rows, for one module.

    K_P[r, s] = k**2 sum_j <w_j, G_rj> <w_j, G_sj> with w_j ~ N(0, sigma**2 I). Its mean is K_W =
    sum_j <G_rj, G_sj>; its variance, by Isserlis' theorem, sum_j (|G_rj|**2 |G_sj|**2 +
    <G_rj, G_sj>**2). Exact for every width.

    Args:
        G: Jacobian blocks (R, d_out, d_in) of R rows. For other variances of weight and bias,
            append the bias as a column and scale columns by their sigma.
        G0: Blocks (S, d_out, d_in) of the columns; by default the rows'.
        chunk: Neurons at a time.

    Returns:
        Two arrays (R, S).

    Raises:
        InputError: For shapes that do not fit.
    """
    left = as_array(G, "G")
    right = left if G0 is None else as_array(G0, "G'")
    if left.ndim != 3 or right.ndim != 3 or left.shape[1:] != right.shape[1:]:
        raise InputError(f"Jacobian blocks {left.shape} and {right.shape} are not (R, d_out, d_in)")
    energy, energy0 = (np.sum(part**2, axis=2) for part in (left, right))
    mean = np.zeros((len(left), len(right)))
    variance = energy @ energy0.T
    for start in range(0, left.shape[1], chunk):
        part = slice(start, start + chunk)
        inner = left[:, part].transpose(1, 0, 2) @ right[:, part].transpose(1, 2, 0)
        mean += inner.sum(axis=0)
        variance += np.sum(inner**2, axis=0)
    return mean, variance


def _exponent(eps: float, least2: Array | float, least_inf: Array | float) -> Array:
    return np.minimum(eps**2 * np.asarray(least2) / 16, eps * np.asarray(least_inf) / 4)


def _energy_shares(energies: ArrayLike) -> Array:
    a = as_array(energies, "row energies")
    if a.ndim == 0 or (a < 0).any():
        raise InputError("row energies are an array (..., d_out) of non-negative numbers")
    total = a.sum(axis=-1, keepdims=True)
    if not (total > 0).all():
        raise InputError("row energies are all zero: a module without gradient has no Gamma")
    return np.asarray(a / total)


def _check_eps(eps: float, below: float = math.inf, name: str = "eps") -> None:
    if not 0 < eps < below:
        raise InputError(f"{name} must lie above 0 and below {below:g}, not at {eps}")
