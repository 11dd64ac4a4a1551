"""Kernels without what all examples share, and without each example's similarity with itself."""

from __future__ import annotations

import numpy as np

from ntk_propulsion.theory.inputs import (
    Array,
    KernelLike,
    UndefinedError,
    as_matrix,
    as_square,
    blocks,
    count_outputs,
)

# Centring leaves rounding where the exact result is zero; below this share of |K| it is that.
ROUNDING = 1e-13


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


def centred_nonzero(matrix: Array, outputs: int, name: str) -> Array:
    """Return the centred kernel, or raise InputError with its name where only rounding is left."""
    state = "is zero after centring over examples"
    return _checked(centre(matrix, outputs), matrix, name, state)


def u_centre(K: KernelLike, outputs: int | None = None, name: str = "K") -> Array:
    """Return the kernel with diagonal blocks zero and no row or column mean over other examples.

    The orthogonal projection, for each pair of outputs, on the matrices of zero diagonal whose rows
    and columns sum to zero. For a symmetric block that is Szekely and Rizzo's U-centring.
    """
    matrix = as_square(K, name)
    count = count_outputs(K, outputs=outputs)
    parts = blocks(without_self(matrix, count, name), count)
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
    result = _zero_diagonal((parts - fitted).reshape(matrix.shape), count)
    return _checked(result, matrix, name, "is zero after centring over examples")


def without_self(matrix: Array, outputs: int, name: str) -> Array:
    """Return the kernel with diagonal blocks zero, or raise InputError where nothing is left."""
    state = "is zero but for its diagonal blocks"
    return _checked(_zero_diagonal(as_square(matrix, name), outputs), matrix, name, state)


def _zero_diagonal(matrix: Array, outputs: int) -> Array:
    parts = blocks(matrix, outputs).copy()
    index = np.arange(parts.shape[0])
    parts[index, :, index, :] = 0
    return parts.reshape(matrix.shape)


def _checked(result: Array, matrix: Array, name: str, state: str) -> Array:
    if np.linalg.norm(result) <= ROUNDING * np.linalg.norm(matrix):
        raise UndefinedError(f"{name} {state}: there is nothing left to compare")
    return result
