"""Uncertainty over examples: bootstrap and jackknife intervals, and a permutation test.

All O rows of an example move together. A resampled example meets its own copies, whose similarity
is a diagonal entry; an ordinary bootstrap counts those as pairs of different examples, which pulls
every Frobenius-type statistic towards the diagonal's (in simulations its 95% interval of the
alignment over distinct pairs covered 0% to 82%). Here such pairs are dropped: with multinomial
weights w, <K, K0> becomes c sum_{i != j} w_i w_j <K_ij, K0_ij> + sum_i w_i <K_ii, K0_ii>, with
K_ij the O x O block of two examples and c restoring the number of pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ntk_propulsion.errors import InputError, unknown
from ntk_propulsion.theory.distances import DISTANCES, Products, as_it_is, centred_nonzero
from ntk_propulsion.theory.inputs import (
    Array,
    KernelLike,
    UndefinedError,
    as_square,
    blocks,
    count_outputs,
    kernel_pair,
    nonzero,
    rows_are_columns,
)


@dataclass(frozen=True)
class Interval:
    """An estimate and the interval that its statistic's population value lies in.

    Attributes:
        estimate: The statistic of the examples at hand.
        low: Lower end.
        high: Upper end.
        level: Nominal coverage, e.g. 0.95.
        method: ``"bootstrap"`` or ``"jackknife"``.
    """

    estimate: float
    low: float
    high: float
    level: float
    method: str


@dataclass(frozen=True)
class PermutationTest:
    """A test of no relation between two kernels' examples.

    Attributes:
        statistic: CKA or alignment of the kernels as they are.
        p_value: Share of permutations (the identity counted) that reach it, one-sided.
        null_mean: Mean of the statistic over permutations.
        null_deviation: Its standard deviation.
        permutations: How many were drawn.
    """

    statistic: float
    p_value: float
    null_mean: float
    null_deviation: float
    permutations: int


def bootstrap_intervals(
    K: KernelLike,
    K0: KernelLike,
    outputs: int | None = None,
    *,
    statistics: Iterable[str] | None = None,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    same_examples: bool | None = None,
) -> dict[str, Interval]:
    """Return percentile bootstrap intervals over examples of distances by name.

    What an interval is of: the statistic with each inner product replaced by its expectation over
    N examples drawn from the population that the given ones were drawn from. For `pair_alignment`
    and `unbiased_cka` that is the population's own value, whatever N; the others contain the
    diagonal with weight 1/N, so theirs is the value at this N. Coverage in simulations (random
    features, N = 16 and 48, level 0.95) was 0.92 to 1, high where the kernels are nearly
    unrelated: there the bootstrap is too wide, and `permutation_test` is the tool.

    Kernels are centred once, not per resample: the centred kernel is orthogonal to everything that
    centring could change, so that to first order it adds no spread.

    Args:
        K: The kernel under test (N*O, M*O).
        K0: The reference kernel over the same examples.
        outputs: O, where neither kernel is an object that knows it; 1 by default.
        statistics: Names of distances that follow from inner products; by default all that are
            defined for the kernels.
        level: Nominal coverage.
        resamples: Number of bootstrap resamples.
        seed: Of the resamples, which all statistics share.
        same_examples: Whether rows and columns are the same examples; by default what a kernel
            object says, else whether the kernels are square. If not, rows and columns are resampled
            independently.

    Raises:
        InputError: Where the kernels do not compare, there are fewer than 3 examples, or a
            statistic is unknown or not defined.
    """
    A, B = kernel_pair(K, K0)
    count = count_outputs(K, K0, outputs=outputs)
    same = rows_are_columns(K, K0, stated=same_examples)
    weights = _resampling_weights(A, count, same, resamples, seed)
    tail = 100 * _tail_probability(level)
    result = {}
    known = resampled()
    for name in _names(statistics, same):
        chosen = known[name]
        try:
            a, b = chosen.prepare(A, count, "K"), chosen.prepare(B, count, "K0")
        except UndefinedError:
            if statistics is None:
                continue
            raise
        products = [_block_products(*pair, count) for pair in ((a, b), (a, a), (b, b))]
        sums = [_weighted_sums(part, *weights, chosen.distinct) for part in products]
        with np.errstate(invalid="ignore", divide="ignore"):
            values = chosen.formula(*sums)
        drawn = values[1:][np.isfinite(values[1:])]
        if not len(drawn):
            raise InputError(f"no resample leaves {name} defined: give more examples or resamples")
        low, high = np.percentile(drawn, [tail, 100 - tail])
        result[name] = Interval(float(values[0]), float(low), float(high), level, "bootstrap")
    return result


def resampled() -> dict[str, Products]:
    """Return the distances that have bootstrap intervals, by name."""
    return {name: each.products for name, each in DISTANCES.items() if each.products}


def _names(statistics: Iterable[str] | None, same: bool) -> list[str]:
    known = resampled()
    defined = [name for name, products in known.items() if same or not products.distinct]
    chosen = defined if statistics is None else list(statistics)
    for name in chosen:
        if name not in known:
            raise unknown("statistic", name, known)
        if name not in defined:
            raise InputError(f"{name} needs kernels with the same examples in rows and columns")
    return chosen


def _tail_probability(level: float) -> float:
    if not 0 < level < 1:
        raise InputError(f"the level of an interval lies between 0 and 1, not at {level}")
    return (1 - level) / 2


def _resampling_weights(
    matrix: Array, outputs: int, same: bool, resamples: int, seed: int
) -> tuple[Array, Array | None]:
    """Return weights (1 + resamples, N) of rows and, for other examples, (.., M) of columns.

    The first row is all ones: the examples as they are.
    """
    rows, columns = (size // outputs for size in matrix.shape)
    if min(rows, columns) < 3 or resamples < 1:
        raise InputError("a bootstrap needs at least 3 examples and 1 resample")
    rng = np.random.default_rng(seed)

    def draw(n: int) -> Array:
        drawn = rng.multinomial(n, np.full(n, 1 / n), size=resamples)
        # One example drawn N times leaves no pair.
        return np.vstack([np.ones(n), drawn[(drawn > 0).sum(axis=1) > 1]]).astype(float)

    if same:
        return draw(rows), None
    left, right = draw(rows), draw(columns)
    kept = min(len(left), len(right))
    return left[:kept], right[:kept]


def _block_products(a: Array, b: Array, outputs: int) -> Array:
    """Return the inner products (N, M) of the two kernels' O x O blocks."""
    product = blocks(a * b, outputs)
    return np.asarray(product.sum(axis=(1, 3)))


def _weighted_sums(products: Array, left: Array, right: Array | None, distinct: bool) -> Array:
    if right is not None:
        return np.einsum("bi,bi->b", left @ products, right)
    n = len(products)
    diagonal = np.diag(products)
    pairs = np.einsum("bi,bi->b", left @ (products - np.diag(diagonal)), left)
    pairs = pairs * (n * (n - 1) / (n * n - np.sum(left**2, axis=1)))
    return pairs if distinct else pairs + left @ diagonal


def jackknife_interval(
    statistic: Callable[..., float],
    *kernels: KernelLike,
    outputs: int | None = None,
    level: float = 0.95,
) -> Interval:
    """Return a delete-one-example jackknife interval of any smooth statistic of kernels.

    Estimate +- t(N - 1) times the jackknife's standard error (Efron and Stein 1981); no example is
    ever repeated, so none meets its copy. It calls the statistic N + 1 times. Not for statistics
    that jump (label agreement) or take a maximum.

    Args:
        statistic: From the kernels, as float64 arrays, to a number.
        *kernels: Square kernels (N*O, N*O) over the same examples.
        outputs: O, where no kernel is an object that knows it; 1 by default.
        level: Nominal coverage.

    Raises:
        InputError: For no kernels, kernels that are not square or differ in size, or N < 3.
    """
    if not kernels:
        raise InputError("a jackknife needs at least one kernel")
    count = count_outputs(*kernels, outputs=outputs)
    arrays = [as_square(K, f"kernel {i}") for i, K in enumerate(kernels)]
    for array in arrays:
        kernel_pair(arrays[0], array)
    n = len(arrays[0]) // count
    if n < 3:
        raise InputError(f"a jackknife over {n} examples says nothing: at least 3 are needed")
    estimate = statistic(*arrays)
    left_out = []
    for i in range(n):
        keep = np.delete(np.arange(n * count), slice(i * count, (i + 1) * count))
        left_out.append(statistic(*(array[np.ix_(keep, keep)] for array in arrays)))
    error = np.std(left_out) * np.sqrt(n - 1)
    reach = float(stats.t.ppf(1 - _tail_probability(level), n - 1) * error)
    return Interval(float(estimate), estimate - reach, estimate + reach, level, "jackknife")


def permutation_test(
    K: KernelLike,
    K0: KernelLike,
    outputs: int | None = None,
    *,
    centred: bool = True,
    permutations: int = 999,
    seed: int = 0,
    same_examples: bool | None = None,
) -> PermutationTest:
    """Return a permutation (Mantel) test of whether two kernels relate the same examples.

    K's examples are permuted, all O rows of one together, rows and columns alike; for kernels over
    different row and column examples, independently. Norms do not change, so that CKA (centred) or
    the alignment is compared with its exact null distribution: kernels paired at random.

    Args:
        K: The kernel under test (N*O, M*O).
        K0: The reference kernel over the same examples.
        outputs: O, where neither kernel is an object that knows it; 1 by default.
        centred: Whether the statistic is CKA (True) or the alignment.
        permutations: How many to draw.
        seed: Of the permutations.
        same_examples: As for `bootstrap_intervals`.

    Raises:
        InputError: Where the kernels do not compare, or either is zero (after centring).
    """
    if permutations < 1:
        raise InputError(f"a permutation test needs permutations, not {permutations}")
    A, B = kernel_pair(K, K0)
    count = count_outputs(K, K0, outputs=outputs)
    same = rows_are_columns(K, K0, stated=same_examples)
    prepare = centred_nonzero if centred else as_it_is
    a, b = prepare(nonzero(A, "K"), count, "K"), prepare(nonzero(B, "K0"), count, "K0")
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    n, m = (size // count for size in a.shape)
    # One row for each O x O block: a permutation then gathers whole blocks, in one take.
    moved, fixed = (blocks(k, count).transpose(0, 2, 1, 3).reshape(n * m, -1) for k in (a, b))
    observed = float(np.sum(a * b))
    rng = np.random.default_rng(seed)
    null = np.empty(permutations)
    for i in range(permutations):
        rows = rng.permutation(n)
        columns = rows if same else rng.permutation(m)
        permuted = moved.take((rows[:, None] * m + columns).ravel(), axis=0)
        # Not a BLAS dot: waking its threads costs more than this sum.
        null[i] = np.einsum("ij,ij->", permuted, fixed)
    # Rounding must not make a permutation that changes nothing count as smaller.
    reached = int(np.sum(null >= observed - 1e-12))
    return PermutationTest(
        statistic=observed,
        p_value=(1 + reached) / (1 + permutations),
        null_mean=float(null.mean()),
        null_deviation=float(null.std()),
        permutations=permutations,
    )
