"""Distances between two kernels over the same examples, the scale-free ones first.

K is the kernel under test, K0 the reference. All take square kernels, asymmetric kernels and cross
kernels (N*O, M*O): the inner product is the Frobenius one, <K, K0> = tr(K' K0), which keeps the
transpose that tr(K K0) drops.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import numpy as np

from ntk_propulsion.errors import InputError, unknown
from ntk_propulsion.theory.inputs import (
    Array,
    KernelLike,
    UndefinedError,
    as_matrix,
    as_square,
    blocks,
    count_outputs,
    kernel_pair,
    nonzero,
    rows_are_columns,
)

# Centring leaves rounding where the exact result is zero; below this share of |K| it is that.
ROUNDING = 1e-13

NORMS = ("frobenius", "spectral", "operator-1", "operator-inf", "entrywise-1", "entrywise-inf")


def norm(K: KernelLike, kind: str | float = "frobenius") -> float:
    """Return a norm of a kernel (N*O, M*O).

    Args:
        K: The kernel.
        kind: ``"frobenius"``; an operator norm ``"spectral"`` (p = 2), ``"operator-1"`` (largest
            column sum) or ``"operator-inf"`` (largest row sum); ``"entrywise-1"``,
            ``"entrywise-inf"``, or a number p >= 1 for the entrywise p-norm
            (sum abs(K_ij)**p)**(1/p).

    Raises:
        InputError: For an unknown kind or p < 1.
    """
    matrix = as_matrix(K)
    size = float(np.abs(matrix).max())
    if size == 0:
        return 0.0
    return size * _norm_of_scaled(matrix / size, kind)


def _norm_of_scaled(matrix: Array, kind: str | float) -> float:
    if not isinstance(kind, str):
        if not kind >= 1:
            raise InputError(f"an entrywise p-norm needs p >= 1, not {kind}")
        return float(np.linalg.norm(matrix.ravel(), kind))
    if kind.startswith("entrywise-"):
        return _norm_of_scaled(matrix, _order(kind))
    if kind.startswith("operator-"):
        return float(np.linalg.norm(matrix, _order(kind)))
    if kind == "spectral":
        return _spectral_norm(matrix)
    if kind == "frobenius":
        return float(np.linalg.norm(matrix))
    raise unknown("norm", kind, NORMS)


def _order(kind: str) -> float:
    if kind not in NORMS:
        raise unknown("norm", kind, NORMS)
    return float(kind.rpartition("-")[2])


def _spectral_norm(matrix: Array) -> float:
    # eigvalsh costs a quarter of the SVD.
    if matrix.shape[0] == matrix.shape[1] and (matrix == matrix.T).all():
        return float(np.abs(np.linalg.eigvalsh(matrix)).max())
    return float(np.linalg.norm(matrix, 2))


def relative_error(K: KernelLike, K0: KernelLike, kind: str | float = "frobenius") -> float:
    """Return |K - K0| / |K0| in the norm of that kind (see `norm`).

    Raises:
        InputError: Where the kernels do not compare or K0 is zero.
    """
    A, B = kernel_pair(K, K0)
    nonzero(B, "K0")
    return norm(A - B, kind) / norm(B, kind)


def alignment(K: KernelLike, K0: KernelLike) -> float:
    """Return the cosine A = <K, K0> / (|K| |K0|), in [-1, 1], and in [0, 1] for PSD kernels.

    Cristianini et al., On Kernel-Target Alignment (2001), definition 1.

    Raises:
        InputError: Where the kernels do not compare or either is zero.
    """
    return _cosine(*_nonzero_pair(K, K0))


def alignment_distance(K: KernelLike, K0: KernelLike) -> float:
    """Return 1 - A.

    Fort et al., Deep learning versus kernel learning (2020), write it 1 - tr(K K0) / (|K| |K0|),
    which is the same for symmetric kernels only. Computed as |K/|K| - K0/|K0||**2 / 2, which keeps
    its digits where A is near 1.
    """
    A, B = _nonzero_pair(K, K0)
    return float(np.sum((A / np.linalg.norm(A) - B / np.linalg.norm(B)) ** 2) / 2)


def best_scale(K: KernelLike, K0: KernelLike) -> float:
    """Return s* = <K, K0> / <K, K>, the factor that brings K nearest to K0 in Frobenius norm."""
    A, B = _nonzero_pair(K, K0)
    size, size0 = (np.abs(as_matrix(k)).max() for k in (K, K0))
    return float(np.sum(A * B) / np.sum(A * A) * (size0 / size))


def best_scale_error(K: KernelLike, K0: KernelLike) -> float:
    """Return min over real s of |s K - K0| / |K0|, in [0, 1].

    It equals sqrt(1 - A**2) with A the alignment: s* K is the projection of K0 on the line through
    K. So it is symmetric in K and K0 though its form is not.

    Examples:
        >>> K = np.diag([1.0, 2.0])
        >>> best_scale_error(3 * K, K)  # a factor is no difference
        0.0
        >>> round(best_scale_error(np.eye(2), K), 3)
        0.316
    """
    A, B = _nonzero_pair(K, K0)
    return float(np.linalg.norm(best_scale(A, B) * A - B) / np.linalg.norm(B))


def centre(K: KernelLike, outputs: int | None = None) -> Array:
    """Return the kernel (N*O, M*O) of features with their mean over examples taken off.

    H_N K H_M with H_N = (I - 11'/N) kron I_O: over examples, for each pair of outputs by itself,
    not over rows. A cross kernel loses the mean of its row examples on the left and that of its
    column examples on the right.
    """
    parts = blocks(as_matrix(K), count_outputs(K, outputs=outputs))
    parts = parts - parts.mean(axis=0, keepdims=True)
    parts = parts - parts.mean(axis=2, keepdims=True)
    return parts.reshape(parts.shape[0] * parts.shape[1], -1)


def cka(K: KernelLike, K0: KernelLike, outputs: int | None = None) -> float:
    """Return the centred kernel alignment: the alignment of both kernels after `centre`.

    Cortes et al. (JMLR 2012); Kornblith et al. (2019). With few examples and many features it lies
    above its population value, for each example is most like itself: see `unbiased_cka`.

    Args:
        K: A kernel (N*O, M*O).
        K0: The reference, of the same shape.
        outputs: O, where neither kernel is an object that knows it; 1 by default.

    Raises:
        InputError: Where the kernels do not compare, or either is zero after centring.
    """
    A, B = _nonzero_pair(K, K0)
    count = count_outputs(K, K0, outputs=outputs)
    return _cosine(centred_nonzero(A, count, "K"), centred_nonzero(B, count, "K0"))


def pair_alignment(K: KernelLike, K0: KernelLike, outputs: int | None = None) -> float:
    """Return the alignment over pairs of distinct examples: the diagonal blocks are left out.

    An example's similarity with itself is large for most kernels and makes them look alike; this is
    the cosine of what they say of *other* examples, and estimates the population's alignment
    E[k k0] / sqrt(E[k k] E[k0 k0]) over independent pairs without that bias.

    Raises:
        InputError: As `alignment`; and for kernels that are not square.
    """
    A, B = _nonzero_pair(K, K0)
    count = count_outputs(K, K0, outputs=outputs)
    return _cosine(_distinct(A, count, "K"), _distinct(B, count, "K0"))


def unbiased_cka(K: KernelLike, K0: KernelLike, outputs: int | None = None) -> float:
    """Return CKA with each of its three inner products replaced by its unbiased estimate.

    Song et al. (JMLR 2012), equation 5, in its U-centred form (Szekely and Rizzo 2014), summed over
    pairs of outputs. In [-1, 1]; near 0 for unrelated kernels even with few examples.

    Raises:
        InputError: As `cka`; for kernels that are not square, or with fewer than 4 examples.
    """
    A, B = _nonzero_pair(K, K0)
    count = count_outputs(K, K0, outputs=outputs)
    return _cosine(u_centre(A, count, "K"), u_centre(B, count, "K0"))


def u_centre(K: KernelLike, outputs: int | None = None, name: str = "K") -> Array:
    """Return the kernel with diagonal blocks zero and no row or column mean over other examples.

    The orthogonal projection, for each pair of outputs, on the matrices of zero diagonal whose rows
    and columns sum to zero. For a symmetric block that is Szekely and Rizzo's U-centring.
    """
    matrix = as_square(K, name)
    count = count_outputs(K, outputs=outputs)
    parts = blocks(_distinct(matrix, count, name), count)
    n = parts.shape[0]
    if n < 4:
        raise UndefinedError(f"{name} has {n} examples: unbiased CKA needs at least 4")
    # r and c solve: r_i + c_j fitted to the off-diagonal entries by least squares.
    rows, columns = parts.sum(axis=2), parts.sum(axis=0)  # (N, O, O): i o p and o j p
    columns = columns.transpose(1, 0, 2)
    total = rows.sum(axis=0)
    even = (rows + columns) / (2 * (n - 2)) - total / (2 * (n - 1) * (n - 2))
    odd = (rows - columns) / (2 * n)
    fitted = (even + odd)[:, :, None, :] + (even - odd).transpose(1, 0, 2)[None]
    result = _without_diagonal((parts - fitted).reshape(matrix.shape), count)
    return _checked(result, matrix, name, "is zero after centring over examples")


def trace_ratio(K: KernelLike, K0: KernelLike) -> float:
    """Return tr(K0) / tr(K): a factor on K, as `best_scale` is, from the diagonals alone.

    Raises:
        InputError: For kernels that are not square, or where tr(K) = 0.
    """
    A, B = kernel_pair(K, K0)
    trace = np.trace(as_square(A, "K"))
    if trace == 0:
        raise UndefinedError("K has trace 0: the trace ratio is not defined")
    return float(np.trace(B) / trace)


def compare_kernels(
    K: KernelLike,
    K0: KernelLike,
    outputs: int | None = None,
    *,
    same_examples: bool | None = None,
    norms: tuple[str | float, ...] = NORMS,
) -> dict[str, float]:
    """Return the distances of a kernel to a reference by name, the scale-free ones first.

    Args:
        K: The kernel under test (N*O, M*O).
        K0: The reference kernel, over the same examples.
        outputs: O, where neither kernel is an object that knows it; 1 by default.
        same_examples: Whether rows and columns are the same examples; by default what a kernel
            object says, else whether the kernels are square. If not, `pair_alignment`,
            `unbiased_cka` and `trace_ratio` have no meaning and are left out.
        norms: Norms of the relative errors, as for `norm`.

    Returns:
        Distances by function name; relative errors as ``relative_<norm>``. A measure that is not
        defined for these kernels is left out: CKA of a kernel that is the same for all examples (a
        head's bias has one), unbiased CKA of fewer than 4, a trace of 0.

    Raises:
        InputError: Where the kernels do not compare, or either is zero.
    """
    A, B = kernel_pair(K, K0)
    count = count_outputs(K, K0, outputs=outputs)
    same = rows_are_columns(K, K0, stated=same_examples)
    measures: dict[str, Callable[[], float]] = {
        "alignment": lambda: alignment(A, B),
        "alignment_distance": lambda: alignment_distance(A, B),
        "best_scale_error": lambda: best_scale_error(A, B),
        "cka": lambda: cka(A, B, count),
    }
    if same:
        measures["pair_alignment"] = lambda: pair_alignment(A, B, count)
        measures["unbiased_cka"] = lambda: unbiased_cka(A, B, count)
    measures["best_scale"] = lambda: best_scale(A, B)
    if same:
        measures["trace_ratio"] = lambda: trace_ratio(A, B)
    result = {}
    for name, measure in measures.items():
        with suppress(UndefinedError):
            result[name] = measure()
    for kind in norms:
        result[f"relative_{str(kind).replace('-', '_')}"] = relative_error(A, B, kind)
    return result


def _nonzero_pair(K: KernelLike, K0: KernelLike) -> tuple[Array, Array]:
    A, B = kernel_pair(K, K0)
    return nonzero(A, "K"), nonzero(B, "K0")


def _cosine(A: Array, B: Array) -> float:
    cosine = np.sum(A * B) / (np.linalg.norm(A) * np.linalg.norm(B))
    return float(np.clip(cosine, -1, 1))


def centred_nonzero(matrix: Array, outputs: int, name: str) -> Array:
    """Return the centred kernel, or raise InputError with its name where only rounding is left."""
    state = "is zero after centring over examples"
    return _checked(centre(matrix, outputs), matrix, name, state)


def _distinct(matrix: Array, outputs: int, name: str) -> Array:
    state = "is zero but for its diagonal blocks"
    return _checked(_without_diagonal(as_square(matrix, name), outputs), matrix, name, state)


def _without_diagonal(matrix: Array, outputs: int) -> Array:
    parts = blocks(matrix, outputs).copy()
    index = np.arange(parts.shape[0])
    parts[index, :, index, :] = 0
    return parts.reshape(matrix.shape)


def _checked(result: Array, matrix: Array, name: str, state: str) -> Array:
    if np.linalg.norm(result) <= ROUNDING * np.linalg.norm(matrix):
        raise UndefinedError(f"{name} {state}: there is nothing left to compare")
    return result
