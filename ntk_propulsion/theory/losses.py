"""The losses that training is predicted for, as functions of the outputs: value, slope, curvature.

Each is a mean over the N examples, as `ntk_propulsion.training.finetuning` takes it, so that a
learning rate means the same in a prediction as in a training. Outputs f are (..., N, O).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, logsumexp, softmax

from ntk_propulsion.errors import InputError, unknown
from ntk_propulsion.theory.inputs import Array
from ntk_propulsion.theory.regression import as_targets


class Loss(Protocol):
    """A loss that is a mean over examples, with its derivatives by the outputs."""

    @property
    def targets(self) -> Array:
        """What the outputs are trained towards, (N, O)."""

    def value(self, f: Array) -> Array:
        """Return the loss (...) of outputs (..., N, O)."""

    def slope(self, f: Array) -> Array:
        """Return dL/df (N, O) at outputs (N, O)."""

    def hessian(self, f: Array) -> Array:
        """Return the second derivatives (N, O, O) of each example at outputs (N, O)."""

    @property
    def curvature(self) -> float:
        """The largest eigenvalue that the Hessian has at any outputs."""


@dataclass(frozen=True)
class SquaredLoss:
    """(1/N) sum_n |f_n - y_n|**2: no factor 1/2, and outputs add; torch's mse_loss where O = 1."""

    targets: Array

    def value(self, f: Array) -> Array:
        """Return the loss (...) of outputs (..., N, O)."""
        return np.sum((f - self.targets) ** 2, axis=(-2, -1)) / len(self.targets)

    def slope(self, f: Array) -> Array:
        """Return 2 (f - y) / N."""
        return self.curvature * (f - self.targets)

    def hessian(self, f: Array) -> Array:
        """Return 2 I / N for each example."""
        examples, outputs = self.targets.shape
        return np.broadcast_to(self.curvature * np.eye(outputs), (examples, outputs, outputs))

    @property
    def curvature(self) -> float:
        """2 / N, everywhere."""
        return 2 / len(self.targets)


@dataclass(frozen=True)
class CrossEntropy:
    """(1/N) sum_n -y_n' log softmax(f_n), for O >= 2 logits; y (N, O) holds probabilities."""

    targets: Array

    def value(self, f: Array) -> Array:
        """Return the loss (...) of logits (..., N, O)."""
        return np.mean(logsumexp(f, axis=-1) - np.sum(self.targets * f, axis=-1), axis=-1)

    def slope(self, f: Array) -> Array:
        """Return (softmax(f) - y) / N."""
        return (softmax(f, axis=-1) - self.targets) / len(f)

    def hessian(self, f: Array) -> Array:
        """Return (diag p - p p') / N for each example, p = softmax(f)."""
        p = softmax(f, axis=-1)
        return (p[:, :, None] * np.eye(p.shape[1]) - p[:, :, None] * p[:, None, :]) / len(f)

    @property
    def curvature(self) -> float:
        """1 / (2N): diag p - p p' is largest where two classes share the probability."""
        return 1 / (2 * len(self.targets))


@dataclass(frozen=True)
class Logistic:
    """(1/N) sum_n log(1 + exp(-y_n f_n)): the cross-entropy of two logits, by their margin f.

    f and y are (N, 1), y is -1 or +1. Two logits and their margin train alike, each under its own
    kernel: the loss depends on nothing else.
    """

    targets: Array

    def value(self, f: Array) -> Array:
        """Return the loss (...) of margins (..., N, 1)."""
        return np.mean(np.logaddexp(0, -self.targets * f), axis=(-2, -1))

    def slope(self, f: Array) -> Array:
        """Return -y / (1 + exp(y f)) / N."""
        return -self.targets * expit(-self.targets * f) / len(f)

    def hessian(self, f: Array) -> Array:
        """Return p (1 - p) / N for each example, p = 1 / (1 + exp(-f))."""
        return (expit(f) * expit(-f) / len(f))[:, :, None]

    @property
    def curvature(self) -> float:
        """1 / (4N), at margin 0."""
        return 1 / (4 * len(self.targets))


def make_loss(name: str, targets: ArrayLike, examples: int, outputs: int) -> Loss:
    """Return a loss by name, fitted to N examples of O outputs.

    Args:
        name: ``"squared"``, or ``"cross-entropy"``: of logits where O > 1, else of the margin of
            two classes (logit 1 minus logit 0).
        targets: As for `as_targets`: classes (N,), or values (N, O). For cross-entropy the values
            are probabilities that sum to 1, or, where O = 1, -1 and +1.
        examples: N.
        outputs: O.

    Raises:
        InputError: For another name, or targets that do not fit.
    """
    if name not in ("squared", "cross-entropy"):
        raise unknown("loss", name, ("squared", "cross-entropy"))
    Y, _ = as_targets(targets, examples, outputs)
    if Y.shape[1] != outputs:
        raise InputError(f"targets have {Y.shape[1]} columns but the kernel {outputs} outputs")
    if name == "squared":
        return SquaredLoss(Y)
    if outputs == 1:
        if not np.isin(Y, (-1, 1)).all():
            raise InputError("cross-entropy on one output takes two classes, or targets -1 and +1")
        return Logistic(Y)
    if Y.min() < 0 or not np.allclose(Y.sum(axis=1), 1):
        raise InputError("cross-entropy takes classes, or probabilities that sum to 1")
    return CrossEntropy(Y)
