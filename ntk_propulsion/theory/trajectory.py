"""A predicted training, and what every prediction starts from: kernel, first outputs, loss."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ntk_propulsion.errors import InputError
from ntk_propulsion.theory.inputs import (
    Array,
    KernelLike,
    as_array,
    as_matrix,
    as_square,
    count_outputs,
)
from ntk_propulsion.theory.losses import Loss, make_loss


@dataclass(frozen=True)
class Trajectory:
    """A predicted training.

    Attributes:
        times: (T,) in units of gradient-flow time: learning rate times steps for descent.
        outputs: (T, N, O), of the training examples.
        coefficients: (T, N, O), the sums of loss slopes a_t. Directions in the null space of a
            symmetric kernel may be left out: they move no example's output.
        losses: (T,), mean over the training examples.
    """

    times: Array
    outputs: Array
    coefficients: Array
    losses: Array

    def elsewhere(self, cross: KernelLike, f0: ArrayLike) -> Array:
        """Return the outputs (T, M, O) of other examples over the same training.

        Args:
            cross: Their kernel with the training examples, (M*O, N*O): ``empirical_ntk(model,
                others, ..., other=training_batch)``, of the tuning and product trained under.
            f0: Their outputs at the start, (M, O), or (M,) where O = 1.

        Raises:
            InputError: For shapes that do not fit.
        """
        K, outputs = as_matrix(cross, "cross"), self.outputs.shape[2]
        if K.shape[1] != self.coefficients[0].size or len(K) % outputs:
            raise InputError(
                f"a cross kernel of shape {K.shape} needs the {self.coefficients[0].size} "
                "training rows as its columns"
            )
        start = as_start(f0, len(K) // outputs, outputs)
        moved = self.coefficients.reshape(len(self.times), -1) @ K.T
        return start - moved.reshape(len(self.times), *start.shape)


@dataclass(frozen=True)
class Problem:
    """What all predictions start from: a checked kernel, the outputs at the start, a loss."""

    K: Array
    f0: Array
    loss: Loss

    @classmethod
    def of(
        cls, K: KernelLike, f0: ArrayLike, targets: ArrayLike, outputs: int | None, loss: str
    ) -> Problem:
        """Check and shape the caller's arguments: see `gradient_flow`."""
        matrix, count = as_square(K), count_outputs(K, outputs=outputs)
        examples = len(matrix) // count
        fitted = make_loss(loss, targets, examples, count)
        return cls(matrix, as_start(f0, examples, count), fitted)

    def moved(self, coefficients: Array) -> Array:
        """Return the outputs (N, O) after coefficients (N, O)."""
        return self.f0 - (self.K @ coefficients.ravel()).reshape(self.f0.shape)

    def trajectory(self, times: Array, outputs: Array, coefficients: Array) -> Trajectory:
        """Return the trajectory of outputs and coefficients (T, N*O), refused if not finite."""
        shape = (len(times), *self.f0.shape)
        f, a = outputs.reshape(shape), coefficients.reshape(shape)
        if not (np.isfinite(f).all() and np.isfinite(a).all()):
            raise InputError(
                "the predicted outputs overflow: lower the learning rate (`stable_rate` gives the "
                "largest), or look for negative eigenvalues of the kernel"
            )
        return Trajectory(times, f, a, self.loss.value(f))


def as_start(f0: ArrayLike, examples: int, outputs: int) -> Array:
    """Return the outputs at the start as (N, O).

    Raises:
        InputError: Where they are of another size, or not finite.
    """
    start = as_array(f0, "f0")
    if start.shape not in ((examples, outputs), (examples, outputs)[: 1 + (outputs > 1)]):
        raise InputError(f"f0 of shape {start.shape} is not of {examples} examples, {outputs} each")
    return start.reshape(examples, outputs)


def check_rate(learning_rate: float) -> None:
    """Refuse a learning rate that is not positive and finite.

    Raises:
        InputError: It is not.
    """
    if not 0 < learning_rate < np.inf:
        raise InputError(f"a learning rate of {learning_rate}: it must be positive and finite")
