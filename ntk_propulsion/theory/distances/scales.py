"""The factor that brings one kernel nearest to another, and what is wrong after it."""

from __future__ import annotations

import numpy as np

from ntk_propulsion.theory.distances._distance import (
    Distance,
    Products,
    cosine_of_products,
    nonzero_pair,
    register,
)
from ntk_propulsion.theory.inputs import (
    KernelLike,
    UndefinedError,
    as_matrix,
    as_square,
    kernel_pair,
)


def best_scale(K: KernelLike, K0: KernelLike) -> float:
    """Return s* = <K, K0> / <K, K>, the factor that brings K nearest to K0 in Frobenius norm."""
    A, B = nonzero_pair(K, K0)
    size, size0 = (np.abs(as_matrix(k)).max() for k in (K, K0))
    return float(np.sum(A * B) / np.sum(A * A) * (size0 / size))


register(
    Distance(
        "best_scale",
        lambda K, K0, outputs: best_scale(K, K0),
        label="best scale s",
        meaning="The factor that brings K nearest to K_F. It is a ratio of units (k², the sizes "
        "of the weights), and acts like a learning rate.",
        products=Products(lambda p, q, r: p / q),
        order=6,
    )
)


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
    A, B = nonzero_pair(K, K0)
    return float(np.linalg.norm(best_scale(A, B) * A - B) / np.linalg.norm(B))


register(
    Distance(
        "best_scale_error",
        lambda K, K0, outputs: best_scale_error(K, K0),
        label="best-scale error",
        meaning="min over s of |sK - K_F|/|K_F| = sqrt(1 - alignment²): what remains wrong after "
        "the best single factor. Its square is the share of K_F's squared norm left over.",
        best=0,
        ignores=("scale",),
        products=Products(lambda p, q, r: np.sqrt(1 - cosine_of_products(p, q, r) ** 2)),
        leading=True,
        order=4,
    )
)


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


register(
    Distance(
        "trace_ratio",
        lambda K, K0, outputs: trace_ratio(K, K0),
        label="trace ratio",
        meaning="tr K_F / tr K: the best scale by the diagonals alone.",
        same_examples=True,
        order=7,
    )
)
