"""Spectra of kernels: eigenvalues, effective ranks, condition number, tail."""

from __future__ import annotations

import numpy as np
import scipy.linalg

from ntk_propulsion.errors import InputError
from ntk_propulsion.theory.inputs import Array, KernelLike, as_matrix, as_square, nonzero

# float32 kernels are symmetric and PSD to about this share of their norm; float64 ones far better.
RTOL = 1e-6


def asymmetry(K: KernelLike) -> float:
    """Return |K - K'| / |K| of a square kernel: 0 for symmetric, 2 for antisymmetric ones."""
    matrix = nonzero(as_square(K), "K")
    return float(np.linalg.norm(matrix - matrix.T) / np.linalg.norm(matrix))


def is_symmetric(K: KernelLike, rtol: float = RTOL) -> bool:
    """Return whether a kernel is square and symmetric to rounding: |K - K'| <= rtol |K|."""
    matrix = as_matrix(K)
    if matrix.shape[0] != matrix.shape[1]:
        return False
    return not matrix.any() or asymmetry(matrix) <= rtol


def is_symmetric_psd(K: KernelLike, rtol: float = RTOL) -> bool:
    """Return whether a kernel is symmetric with no eigenvalue below -rtol times the largest."""
    if not is_symmetric(K, rtol):
        return False
    values = spectrum(K, rtol)
    return bool(values[-1] >= -rtol * np.abs(values).max())


def spectrum(K: KernelLike, rtol: float = RTOL) -> Array:
    """Return, largest first, the eigenvalues of a symmetric kernel, else the singular values.

    Args:
        K: A kernel (N*O, M*O).
        rtol: Relative asymmetry that passes for rounding; it is averaged out.
    """
    matrix = as_matrix(K)
    if is_symmetric(matrix, rtol):
        return np.asarray(scipy.linalg.eigvalsh((matrix + matrix.T) / 2)[::-1])
    return np.asarray(scipy.linalg.svdvals(matrix))


def shares(K: KernelLike) -> Array:
    """Return each value's share of the spectrum's absolute sum, largest first; they sum to 1.

    Raises:
        InputError: For a zero kernel.
    """
    sizes = np.sort(np.abs(spectrum(nonzero(as_matrix(K), "K"))))[::-1]
    return np.asarray(sizes / sizes.sum())


def participation_ratio(K: KernelLike) -> float:
    """Return the effective rank tr(K)**2 / |K|**2, between 1 and the rank for a PSD kernel.

    For cross and asymmetric kernels the singular values take the place of the eigenvalues.

    Examples:
        >>> round(participation_ratio(np.diag([1.0, 1, 0])), 6)
        2.0
    """
    return _participation(shares(K))


def entropy_rank(K: KernelLike) -> float:
    """Return the effective rank exp(-sum p log p) over the spectrum's shares p.

    Never below the participation ratio. Roy and Vetterli, The effective rank (EUSIPCO 2007).
    """
    return _entropy(shares(K))


def top_share(K: KernelLike, k: int = 1) -> float:
    """Return the share of the spectrum's sum that its k largest values hold.

    Raises:
        InputError: For k < 1 or a zero kernel.
    """
    if k < 1:
        raise InputError(f"the top share needs k >= 1, not {k}")
    return float(shares(K)[:k].sum())


def tail(K: KernelLike) -> Array:
    """Return what each rank leaves over: entry k is 1 - `top_share` (k + 1), down to 0."""
    p = shares(K)
    return np.append(np.cumsum(p[:0:-1])[::-1], 0.0)


def condition_number(K: KernelLike, rtol: float = 0.0) -> float:
    """Return the largest over the smallest absolute value of the spectrum, possibly infinite.

    Args:
        K: The kernel.
        rtol: Values below rtol times the largest count as zero: rounding, not spectrum. A float32
            kernel's condition number means nothing above about 1e6.
    """
    return _condition(shares(K), rtol)


def trace(K: KernelLike) -> float:
    """Return the trace of a square kernel."""
    return float(np.trace(as_square(K)))


def describe_spectrum(K: KernelLike) -> dict[str, float]:
    """Return rank measures of one kernel by name, and its trace where it is square."""
    p = shares(K)
    result = {
        "participation_ratio": _participation(p),
        "entropy_rank": _entropy(p),
        "top_share": float(p[0]),
        "condition_number": _condition(p),
    }
    matrix = as_matrix(K)
    if matrix.shape[0] == matrix.shape[1]:
        result["trace"] = trace(matrix)
    return result


def _participation(p: Array) -> float:
    return float(1 / np.sum(p**2))


def _entropy(p: Array) -> float:
    p = p[p > 0]
    return float(np.exp(-np.sum(p * np.log(p))))


def _condition(p: Array, rtol: float = 0.0) -> float:
    return float(p[0] / p[-1]) if p[-1] > rtol * p[0] else float("inf")
