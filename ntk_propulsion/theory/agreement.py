"""How well a predicted training agrees with the one that really took place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ntk_propulsion.errors import InputError
from ntk_propulsion.theory.inputs import Array, as_array
from ntk_propulsion.theory.trajectory import as_start


@dataclass(frozen=True)
class Agreement:
    """Agreement of predicted with real outputs at each of T times.

    Changes are f_t - f_0, since outputs that hardly move are predicted well by f_0 alone.

    Attributes:
        relative_error: (T,), |predicted - real| / |real - start|, Euclidean over examples and
            outputs; 0 is perfect, 1 no better than f_0. NaN where nothing has moved.
        r2: (T,), of the predicted changes: 1 - |p - q|**2 / |q - mean(q)|**2, the mean over
            examples, output by output. NaN where all examples moved alike, or not at all.
        label_agreement: (T,), share of examples that both give one class: the largest output, or,
            for one output, its sign.
    """

    relative_error: Array
    r2: Array
    label_agreement: Array


def agreement(predicted: ArrayLike, real: ArrayLike, start: ArrayLike) -> Agreement:
    """Return how predicted outputs agree with those of a real training, time by time.

    Args:
        predicted: (T, N, O), or (T, N) where O = 1; of any examples, trained on or not.
        real: The same of the real training, at the same times.
        start: The outputs f_0 that both started from, (N, O), or (N,) where O = 1.

    Raises:
        InputError: For shapes that differ, or values that are not finite.
    """
    p, q = as_array(predicted, "predicted"), as_array(real, "real")
    if p.shape != q.shape or p.ndim not in (2, 3):
        raise InputError(
            f"predicted of shape {p.shape} and real of {q.shape} must be one (T, N, O)"
        )
    if p.ndim == 2:
        p, q = p[:, :, None], q[:, :, None]
    f0 = as_start(start, *p.shape[1:])
    missed, change = p - q, q - f0
    varied = change - change.mean(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.where(_energy(change) > 0, np.sqrt(_energy(missed) / _energy(change)), np.nan)
        r2 = np.where(_energy(varied) > 0, 1 - _energy(missed) / _energy(varied), np.nan)
    return Agreement(error, r2, np.mean(_classes(p) == _classes(q), axis=1))


def _energy(values: Array) -> Array:
    return np.sum(values**2, axis=(1, 2))


def _classes(outputs: Array) -> NDArray[np.int64]:
    return outputs.argmax(axis=2) if outputs.shape[2] > 1 else (outputs[:, :, 0] > 0).astype(int)
