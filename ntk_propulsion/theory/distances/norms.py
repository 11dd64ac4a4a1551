"""Norms of kernels, and the plain difference of two in each: the raw errors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ntk_propulsion.errors import InputError, unknown
from ntk_propulsion.theory.distances._distance import Distance, Products, register
from ntk_propulsion.theory.inputs import Array, KernelLike, as_matrix, kernel_pair, nonzero

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


def relative_name(kind: str | float) -> str:
    """Return what tables call the relative error in a norm."""
    return f"relative_{str(kind).replace('-', '_')}"


register(
    Distance(
        "relative_frobenius",
        lambda K, K0, outputs: relative_error(K, K0),
        label="raw error",
        meaning="|K - K_F|/|K_F| as it stands (the paper's heat maps show its entries). Near 1 "
        "whenever K is much smaller than K_F, whatever its shape, so it says little.",
        best=0,
        products=Products(lambda p, q, r: np.sqrt(np.maximum(q - 2 * p + r, 0) / r)),
        leading=True,
        order=8,
    )
)


def _in_norm(kind: str) -> Callable[[KernelLike, KernelLike, int | None], float]:
    return lambda K, K0, outputs: relative_error(K, K0, kind)


for _kind in NORMS[1:]:
    register(
        Distance(
            relative_name(_kind),
            _in_norm(_kind),
            label=f"relative {_kind.replace('-', ' ')}",
            term="relative ...",
            meaning="|K - K_F|/|K_F| in other norms; as the raw error, it depends on scale.",
            best=0,
            order=9,
        )
    )
