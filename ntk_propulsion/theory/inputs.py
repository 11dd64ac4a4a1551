"""What every function of the theory accepts as a kernel, and how it is checked.

A kernel is a numpy array, a torch tensor (any device and dtype) or an object with ``.matrix`` and
``.num_outputs``. Everything becomes float64 numpy. Rows are example-major: row ``n * O + o``.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ntk_propulsion.errors import InputError

Array = NDArray[np.float64]


class UndefinedError(InputError):
    """A measure is not defined for kernels that are otherwise sound."""


class HasMatrix(Protocol):
    """A kernel object: its matrix (N*O, M*O) and the number of outputs O."""

    @property
    def matrix(self) -> torch.Tensor: ...  # noqa: D102

    @property
    def num_outputs(self) -> int: ...  # noqa: D102


KernelLike = ArrayLike | torch.Tensor | HasMatrix


def as_array(values: Any, name: str) -> Array:
    """Return finite values as a float64 array.

    Raises:
        InputError: Where an entry is NaN or infinite, or the values are no numbers.
    """
    values = getattr(values, "matrix", values)
    if isinstance(values, torch.Tensor):
        values = values.detach().to("cpu", torch.float64).numpy()
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is not an array of numbers: {error}") from None
    if not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise InputError(f"{name} has {bad} NaN or infinite entries: check the weights and dtype")
    return array


def as_matrix(K: KernelLike, name: str = "K") -> Array:
    """Return a kernel as a finite, non-empty float64 matrix (N*O, M*O).

    Raises:
        InputError: Where it is not two-dimensional, is empty, or has NaN or infinite entries.
    """
    matrix = as_array(K, name)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise InputError(f"{name} must be a non-empty matrix, not of shape {matrix.shape}")
    return matrix


def as_square(K: KernelLike, name: str = "K") -> Array:
    """Return a kernel whose rows and columns are the same examples, as a float64 matrix."""
    matrix = as_matrix(K, name)
    if matrix.shape[0] != matrix.shape[1]:
        raise InputError(f"{name} must be square, not of shape {matrix.shape}: a cross kernel?")
    return matrix


def nonzero(matrix: Array, name: str, state: str = "is zero") -> Array:
    """Return the matrix over its largest absolute entry: its squares neither under- nor overflow.

    Raises:
        InputError: Where every entry is zero.
    """
    size = np.abs(matrix).max()
    if size == 0:
        raise InputError(f"{name} {state}: a kernel without energy has no direction to compare")
    return matrix / size


def kernel_pair(K: KernelLike, K0: KernelLike) -> tuple[Array, Array]:
    """Return two kernels over the same examples as float64 matrices of one shape.

    Raises:
        InputError: Where a kernel is unusable, the shapes differ, or (kernel objects only) the
            examples or their order differ.
    """
    if hasattr(K, "check_comparable") and hasattr(K0, "check_comparable"):
        K.check_comparable(K0)
    A, B = as_matrix(K, "K"), as_matrix(K0, "K0")
    if A.shape != B.shape:
        raise InputError(f"K has shape {A.shape} but K0 {B.shape}: compute both on one batch")
    return A, B


def count_outputs(*kernels: KernelLike, outputs: int | None = None) -> int:
    """Return O, from the argument, else from the first kernel object that knows it, else 1.

    Raises:
        InputError: Where two sources differ, or O does not divide the kernel's rows and columns.
    """
    objects = [k for k in kernels if hasattr(k, "matrix") and hasattr(k, "num_outputs")]
    known = {int(k.num_outputs) for k in objects}
    if outputs is not None:
        known.add(int(outputs))
    if len(known) > 1:
        raise InputError(f"the number of outputs is given as {sorted(known)}: give one")
    count = known.pop() if known else 1
    for K in kernels:
        matrix: Any = getattr(K, "matrix", K)
        shape = np.shape(matrix)
        if count < 1 or any(size % count for size in shape):
            raise InputError(f"{count} outputs do not divide a kernel of shape {shape}")
    return count


def rows_are_columns(*kernels: KernelLike, stated: bool | None = None) -> bool:
    """Return whether rows and columns of these kernels are the same examples.

    Args:
        *kernels: Kernels of one shape.
        stated: The caller's word; else that of a kernel object's ``.symmetric``; else squareness.

    Raises:
        InputError: Where the caller's word contradicts a kernel object, or a shape.
    """
    rows, columns = as_matrix(kernels[0]).shape
    known = [bool(k.symmetric) for k in kernels if hasattr(k, "matrix") and hasattr(k, "symmetric")]
    same = rows == columns and all(known)
    if stated and not same:
        raise InputError(f"a cross kernel {(rows, columns)} has other examples in its columns")
    return same if stated is None else stated


def blocks(matrix: Array, outputs: int) -> Array:
    """Return a view (N, O, M, O) of a kernel (N*O, M*O)."""
    rows, columns = matrix.shape
    return matrix.reshape(rows // outputs, outputs, columns // outputs, outputs)
