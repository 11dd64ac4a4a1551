"""Kernels judged by what they predict: target alignment and ridge regression.

Ridge strengths are relative to the kernel's operator norm, so no result depends on its scale.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ntk_propulsion.errors import InputError
from ntk_propulsion.theory.distances import alignment, centre, norm
from ntk_propulsion.theory.inputs import (
    Array,
    KernelLike,
    as_array,
    as_square,
    blocks,
    count_outputs,
    nonzero,
)


def as_targets(targets: ArrayLike, examples: int, outputs: int = 1) -> tuple[Array, bool]:
    """Return targets as a matrix (N, C) and whether they are classes.

    Args:
        targets: (N,) whole-number classes: one-hot over O columns, or, where O = 1 and there are
            two classes, -1 and +1 (the larger); or real values (N,) or (N, C), taken as they are.
        examples: N.
        outputs: O.

    Raises:
        InputError: Where N differs, values are not finite, or a class has no output.
    """
    values = as_array(targets, "targets")
    if values.ndim not in (1, 2) or len(values) != examples:
        raise InputError(f"targets of shape {values.shape} do not fit {examples} examples")
    if values.ndim == 2:
        one_hot = bool(np.isin(values, (0, 1)).all() and (values.sum(axis=1) == 1).all())
        return values, one_hot and values.shape[1] > 1
    kind = str(getattr(targets, "dtype", np.asarray(targets).dtype))
    if not ("int" in kind or "bool" in kind):
        return values[:, None], False
    if outputs == 1:
        classes = np.unique(values)
        if len(classes) != 2:
            return values[:, None], False
        return np.where(values[:, None] == classes[1], 1.0, -1.0), True
    if values.min() < 0 or values.max() >= outputs:
        raise InputError(
            f"classes run from {values.min():g} to {values.max():g}: {outputs} outputs"
        )
    return np.eye(outputs)[values.astype(int)], True


def fitted_targets(targets: ArrayLike, examples: int, outputs: int) -> Array:
    """Return targets (N, C) as `as_targets` does, for a kernel of O outputs to be fitted to.

    Raises:
        InputError: As `as_targets`; or where O > 1 and C is another number.
    """
    Y, _ = as_targets(targets, examples, outputs)
    if outputs > 1 and Y.shape[1] != outputs:
        raise InputError(f"targets have {Y.shape[1]} columns but the kernel {outputs} outputs")
    return Y


def target_alignment(
    K: KernelLike, targets: ArrayLike, outputs: int | None = None, *, centred: bool = False
) -> float:
    """Return the alignment of a kernel with the target kernel Y Y', in [0, 1] for a PSD kernel.

    A kernel of O > 1 outputs meets the targets (N, O) stacked to one column (N*O, 1), so that the
    result is y'Ky / (|K| |y|**2), which gradient flow on squared loss sees. A kernel of one output
    meets Y as it is, (N, C): for one-hot targets Y Y' says which pairs share a class. To meet a
    kernel of O outputs in that way, sum it over outputs first: `sum_outputs`.

    Cristianini et al. (2001); centred over examples: Cortes et al. (2012).

    Args:
        K: The kernel (N*O, N*O).
        targets: As for `as_targets`.
        outputs: O, where the kernel is not an object that knows it; 1 by default.
        centred: Whether to centre kernel and targets over examples.

    Raises:
        InputError: Where targets do not fit, or kernel or targets are zero (after centring).
    """
    matrix, count = nonzero(as_square(K), "K"), count_outputs(K, outputs=outputs)
    Y = fitted_targets(targets, len(matrix) // count, count)
    if centred:
        matrix, Y = centre(matrix, count), Y - Y.mean(axis=0)
    if not np.abs(Y).max() > 0:
        raise InputError("targets are all zero or all equal: there is nothing to align with")
    Y = Y if count == 1 else Y.reshape(-1, 1)
    return alignment(matrix, Y @ Y.T)


def sum_outputs(K: KernelLike, outputs: int | None = None) -> Array:
    """Return the kernel (N, M) of all outputs together: sum_o K[(n, o), (m, o)]."""
    matrix = as_array(K, "K")
    return np.einsum("iojo->ij", blocks(matrix, count_outputs(K, outputs=outputs)))


def held_out_predictions(
    K: KernelLike,
    targets: ArrayLike,
    outputs: int | None = None,
    *,
    ridge: float = 1e-3,
    folds: int | None = None,
    offset: ArrayLike | None = None,
    seed: int = 0,
) -> Array:
    """Return what kernel ridge regression on the other examples predicts for each example.

    In closed form from one inverse: with C = (K + lambda I)**-1 and a fold's rows i, the held-out
    prediction is y_i - C_ii**-1 (C y)_i. All O rows of an example are held out together.

    Args:
        K: The kernel (N*O, N*O), symmetric or not.
        targets: As for `as_targets`, fitted to O columns; with O = 1 any number of columns.
        outputs: O, where the kernel is not an object that knows it; 1 by default.
        ridge: lambda / |K|_op, above 0.
        folds: Number of random folds; by default each example is a fold (leave-one-out).
        offset: Predictions (N, O) of the unfitted model f0; the regression is on y - f0. Zero by
            default.
        seed: Of the assignment to folds.

    Returns:
        Predictions (N, C).

    Raises:
        InputError: For a zero kernel, targets that do not fit, ridge <= 0, or folds out of range.
    """
    if not ridge > 0:
        raise InputError(f"ridge must be above 0, not {ridge}")
    matrix, count = nonzero(as_square(K), "K"), count_outputs(K, outputs=outputs)
    examples = len(matrix) // count
    Y = fitted_targets(targets, examples, count)
    start = np.zeros_like(Y) if offset is None else as_array(offset, "offset").reshape(Y.shape)
    residual = (Y - start).reshape(len(matrix), -1)
    inverse = np.linalg.inv(matrix + ridge * norm(matrix, "spectral") * np.eye(len(matrix)))
    weights = inverse @ residual
    held_out = np.empty_like(residual)
    for members in _folds(examples, folds, seed):
        rows = (members[:, None] * count + np.arange(count)).ravel()
        held_out[rows] = residual[rows] - np.linalg.solve(
            inverse[np.ix_(rows, rows)], weights[rows]
        )
    return held_out.reshape(Y.shape) + start


def _folds(examples: int, folds: int | None, seed: int) -> list[Array]:
    count = examples if folds is None else folds
    if not 2 <= count <= examples:
        raise InputError(f"{examples} examples cannot be held out in {count} folds")
    order = np.arange(examples)
    if folds is not None:
        order = np.random.default_rng(seed).permutation(examples)
    return np.array_split(order, count)
