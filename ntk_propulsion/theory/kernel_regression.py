"""Ridge regression with a kernel: what it predicts for other examples, and which ridge to take.

Ridge strengths are relative to the kernel's operator norm, so no prediction depends on its scale.
What a kernel predicts for its own examples when they are left out: `regression`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ntk_propulsion.errors import InputError
from ntk_propulsion.theory.distances import norm
from ntk_propulsion.theory.inputs import (
    Array,
    KernelLike,
    as_array,
    as_matrix,
    as_square,
    count_outputs,
    nonzero,
)
from ntk_propulsion.theory.regression import as_targets, fitted_targets, held_out_predictions

RIDGES = tuple(10.0**power for power in range(-6, 2))


def ridge_coefficients(
    K: KernelLike,
    targets: ArrayLike,
    outputs: int | None = None,
    *,
    ridge: float = 1e-3,
    offset: ArrayLike | None = None,
) -> Array:
    """Return c = (K + lambda I)**-1 (y - f0), (N*O, C): predictions are f0(x) + K(x, X) c.

    For symmetric kernels they minimise |y - f0 - K c|**2 + lambda c'Kc. Asymmetric kernels solve
    the same equations, which minimise nothing. At ridge 0 the shortest least-squares solution: the
    limit of gradient flow on squared loss from f0 (Jacot et al. 2018, arXiv 1806.07572).

    Args:
        K: The kernel of the training examples (N*O, N*O), symmetric or not.
        targets: As for `as_targets`, fitted to O columns; with O = 1 any number of columns.
        outputs: O, where the kernel is not an object that knows it; 1 by default.
        ridge: lambda / |K|_op, at least 0.
        offset: Outputs f0 (N, C) of the model before training. Zero by default: the regression
            is then on the targets themselves.

    Raises:
        InputError: For a zero kernel, a negative ridge, targets or an offset that do not fit, or an
            asymmetric K + lambda I that is singular.
    """
    if not 0 <= ridge < np.inf:
        raise InputError(f"ridge must be at least 0 and finite, not {ridge}")
    matrix, count = as_square(K), count_outputs(K, outputs=outputs)
    unit = nonzero(matrix, "K")
    Y = fitted_targets(targets, len(matrix) // count, count)
    residual = (Y - _as_offset(offset, Y.shape, "offset")).reshape(len(matrix), -1)
    size = np.abs(matrix).max()
    if ridge == 0:
        return np.asarray(np.linalg.lstsq(unit, residual)[0] / size)
    try:
        shifted = unit + ridge * norm(unit, "spectral") * np.eye(len(unit))
        return np.asarray(np.linalg.solve(shifted, residual) / size)
    except np.linalg.LinAlgError:
        raise InputError(f"K + lambda I is singular at ridge {ridge:g}: take another") from None


def ridge_predictions(
    K: KernelLike,
    cross: KernelLike,
    targets: ArrayLike,
    outputs: int | None = None,
    *,
    ridge: float = 1e-3,
    offset: ArrayLike | None = None,
    cross_offset: ArrayLike | None = None,
) -> Array:
    """Return what ridge regression on the training examples predicts for others, (M, C).

    Args:
        K: The kernel of the training examples (N*O, N*O), symmetric or not.
        cross: The kernel of the others with the training examples, (M*O, N*O).
        targets: Of the training examples, as for `ridge_coefficients`.
        outputs: O, where no kernel is an object that knows it; 1 by default.
        ridge: lambda / |K|_op, at least 0.
        offset: Outputs (N, C) of the model before training, for the training examples.
        cross_offset: The same for the others, (M, C). Give both or neither.

    Raises:
        InputError: As `ridge_coefficients`; for a cross kernel that does not fit, or one offset
            without the other.
    """
    if (offset is None) != (cross_offset is None):
        raise InputError("give the offset of the training examples and of the others, or neither")
    count, columns = count_outputs(K, cross, outputs=outputs), as_matrix(cross, "cross")
    c = ridge_coefficients(K, targets, count, ridge=ridge, offset=offset)
    if columns.shape[1] != len(c):
        raise InputError(
            f"a cross kernel of shape {columns.shape} needs the {len(c)} training rows as columns"
        )
    width = c.shape[1] * count
    predictions = (columns @ c).reshape(-1, width)
    return predictions + _as_offset(cross_offset, predictions.shape, "cross_offset")


@dataclass(frozen=True)
class RidgeChoice:
    """The ridge of a grid that predicts held-out examples best.

    Attributes:
        ridge: The choice, relative to |K|_op; the larger one of equals.
        errors: Mean squared error on held-out examples by ridge, mean over examples and columns.
    """

    ridge: float
    errors: dict[float, float]


def choose_ridge(
    K: KernelLike,
    targets: ArrayLike,
    outputs: int | None = None,
    *,
    ridges: Sequence[float] = RIDGES,
    folds: int | None = None,
    offset: ArrayLike | None = None,
    seed: int = 0,
) -> RidgeChoice:
    """Return the ridge with the least squared error on held-out folds of the training examples.

    Args:
        K: The kernel of the training examples (N*O, N*O), symmetric or not.
        targets: As for `ridge_coefficients`.
        outputs: O, where the kernel is not an object that knows it; 1 by default.
        ridges: The grid, each above 0 and relative to |K|_op.
        folds: Number of random folds; by default each example is a fold.
        offset: Outputs (N, C) of the model before training; zero by default.
        seed: Of the assignment to folds.

    Raises:
        InputError: For an empty grid, or as `held_out_predictions`.
    """
    if not len(ridges):
        raise InputError("the grid of ridges is empty")
    count = count_outputs(K, outputs=outputs)
    Y, _ = as_targets(targets, len(as_square(K)) // count, count)
    errors = {
        float(ridge): float(np.mean((predicted - Y) ** 2))
        for ridge in ridges
        for predicted in [
            held_out_predictions(K, Y, count, ridge=ridge, folds=folds, offset=offset, seed=seed)
        ]
    }
    return RidgeChoice(min(errors, key=lambda ridge: (errors[ridge], -ridge)), errors)


def _as_offset(offset: ArrayLike | None, shape: tuple[int, ...], name: str) -> Array:
    if offset is None:
        return np.zeros(shape)
    values = as_array(offset, name)
    if values.size != shape[0] * shape[1]:
        raise InputError(f"{name} of shape {values.shape} does not fit predictions of {shape}")
    return values.reshape(shape)
