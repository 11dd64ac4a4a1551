"""How fast training converges, from the kernel's spectrum: loss curves, times, learning rates."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import logsumexp

from ntk_propulsion.errors import InputError
from ntk_propulsion.theory.distances import norm
from ntk_propulsion.theory.dynamics import positive_modes
from ntk_propulsion.theory.inputs import Array, KernelLike, as_square, count_outputs
from ntk_propulsion.theory.losses import make_loss
from ntk_propulsion.theory.spectrum import is_symmetric_psd
from ntk_propulsion.theory.trajectory import Problem, check_rate


@dataclass(frozen=True)
class LossCurve:
    """Squared loss over a training: L(t) = floor + sum_i energies_i exp(-2 rates_i t).

    With eigenvalues lambda_i and eigenvectors v_i of the kernel and N examples:

    Attributes:
        rates: (R,), largest first, of the residual's decay in units of 1 / gradient-flow time:
            2 lambda_i / N.
        energies: (R,), what each mode adds to the initial loss: (v_i' (f_0 - y))**2 / N.
        floor: The loss that stays: of the residual in the kernel's null space.
    """

    rates: Array
    energies: Array
    floor: float

    @classmethod
    def of(
        cls,
        K: KernelLike,
        f0: ArrayLike,
        targets: ArrayLike,
        outputs: int | None = None,
        *,
        rtol: float | None = None,
    ) -> LossCurve:
        """Return the loss curve of a kernel that is symmetric and positive semi-definite.

        Args:
            K: The kernel of the training examples (N*O, N*O).
            f0: Their outputs at the start, (N, O), or (N,) where O = 1.
            targets: As for `losses.make_loss`, squared loss.
            outputs: O, where the kernel is not an object that knows it; 1 by default.
            rtol: Eigenvalues up to rtol times the largest count as zero; by default float64's
                rounding. A float32 kernel's rounding is about 1e-6.

        Raises:
            InputError: For another kernel, or arguments that do not fit.
        """
        problem = Problem.of(K, f0, targets, outputs, "squared")
        modes = positive_modes(problem.K, rtol)
        if modes is None:
            raise InputError("a loss curve needs a symmetric positive semi-definite kernel")
        values, vectors = modes
        residual = (problem.f0 - problem.loss.targets).ravel()
        coordinates = vectors.T @ residual
        rest = residual - vectors @ coordinates
        examples = len(problem.f0)
        floor = float(rest @ rest) / examples if len(values) < len(residual) else 0.0
        return cls(problem.loss.curvature * values, coordinates**2 / examples, floor)

    @property
    def initial(self) -> float:
        """The loss at the start."""
        return self.floor + float(self.energies.sum())

    @property
    def stable_rate(self) -> float:
        """The learning rate that gradient descent must stay below: 2 / rates[0]."""
        return 2 / float(self.rates[0]) if len(self.rates) else math.inf

    def at(self, times: ArrayLike) -> Array:
        """Return the loss under gradient flow at times (T,)."""
        t = np.asarray(times, dtype=np.float64)
        return self.floor + np.exp(-2 * np.multiply.outer(t, self.rates)) @ self.energies

    def after(self, learning_rate: float, steps: ArrayLike) -> Array:
        """Return the loss after steps (T,) of gradient descent; infinite where it overflows."""
        check_rate(learning_rate)
        s = np.asarray(steps, dtype=np.float64)[..., None]
        with np.errstate(over="ignore", invalid="ignore"):
            left = np.where(s == 0, 1.0, np.exp(-2 * s * self._decay(learning_rate)))
            return self.floor + left @ self.energies

    def time_to(self, level: float) -> float:
        """Return the gradient-flow time at which the loss comes down to a level.

        For a share of the initial loss: ``curve.time_to(0.1 * curve.initial)``.

        Returns:
            0 where it starts there, infinity where the null space keeps it above.

        Raises:
            InputError: For a level that is not a number.
        """
        return self._first(level, self.rates)

    def steps_to(self, level: float, learning_rate: float) -> float:
        """Return the steps of gradient descent after which the loss is first at or below a level.

        Returns:
            A whole number, or infinity where the null space keeps the loss above.

        Raises:
            InputError: For a level that is not a number, or a learning rate that is not stable.
        """
        check_rate(learning_rate)
        decay = self._decay(learning_rate)
        if (decay <= 0).any():
            raise InputError(
                f"a learning rate of {learning_rate:g} is not below the stable {self.stable_rate:g}"
            )
        exact = self._first(level, decay)
        if not 0 < exact < math.inf:
            return exact
        steps = math.ceil(exact * (1 - 1e-12))
        return float(steps if self.after(learning_rate, steps) <= level else steps + 1)

    def _decay(self, learning_rate: float) -> Array:
        """Return each mode's decay by a step of gradient descent, -log abs(1 - lr rate)."""
        shrinkage = learning_rate * self.rates
        with np.errstate(divide="ignore", invalid="ignore"):
            return -np.where(shrinkage < 0.5, np.log1p(-shrinkage), np.log(np.abs(1 - shrinkage)))

    def _first(self, level: float, rates: Array) -> float:
        """Return where floor + sum energies exp(-2 rates t) falls to the level, by its logarithm.

        The root lies between where all modes decay like the fastest and like the slowest one.
        """
        if not math.isfinite(level):
            raise InputError(f"a loss level of {level} cannot be reached")
        if level >= self.initial:
            return 0.0
        if level <= self.floor:
            return math.inf
        lasting = np.isfinite(rates) & (self.energies > 0)
        rates, energies = rates[lasting], np.log(self.energies[lasting])
        target = math.log(level - self.floor)
        if not len(rates) or logsumexp(energies) <= target:
            return math.ulp(0.0)  # at once: modes of infinite rate held the rest
        drop = logsumexp(energies) - target

        def above(log_t: float) -> float:
            return float(logsumexp(energies - 2 * rates * math.exp(log_t))) - target

        # Wide enough for rounding not to hide the change of sign where the drop is tiny.
        low = math.log(drop / (2 * rates.max())) - 40
        high = math.log(drop / (2 * rates.min())) + 5
        return math.exp(brentq(above, low, high, xtol=1e-14))


def stable_rate(K: KernelLike, outputs: int | None = None, *, loss: str = "squared") -> float:
    """Return the learning rate below which full-batch gradient descent cannot diverge.

    2 / (c |K|_op), with c the loss's largest curvature: 2 / N for squared loss, 1 / (2N) for the
    cross-entropy of logits, 1 / (4N) for that of a margin (O = 1). On squared loss descent does
    diverge above it; on cross-entropy it may not, since the curvature falls as the loss does.

    Args:
        K: The kernel of the training examples (N*O, N*O), symmetric positive semi-definite.
        outputs: O, where the kernel is not an object that knows it; 1 by default.
        loss: ``"squared"`` or ``"cross-entropy"``.

    Returns:
        The rate; infinity for a zero kernel.

    Raises:
        InputError: For another kernel or loss.
    """
    matrix, count = as_square(K), count_outputs(K, outputs=outputs)
    if not is_symmetric_psd(matrix):
        raise InputError("the stable learning rate needs a symmetric positive semi-definite kernel")
    examples = len(matrix) // count
    any_targets = np.full((examples, count), 1 / count)
    steepest = make_loss(loss, any_targets, examples, count).curvature * norm(matrix, "spectral")
    return 2 / steepest if steepest else math.inf
