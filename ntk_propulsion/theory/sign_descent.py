"""Sign descent, Adam's early form, predicted from the kernel of gradients with their signs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ntk_propulsion.errors import InputError
from ntk_propulsion.theory.inputs import KernelLike
from ntk_propulsion.theory.trajectory import Problem, Trajectory, check_rate


def sign_descent(
    K: KernelLike,
    f0: ArrayLike,
    targets: ArrayLike,
    learning_rate: float,
    batches: Sequence[ArrayLike],
    *,
    loss: str = "squared",
) -> Trajectory:
    """Return the outputs under sign descent, theta <- theta - lr sign(dL/dtheta).

    Adam without memory (betas 0, epsilon 0) takes these steps, and so does Adam's first step.
    A batch of one example n has gradient chi_n g_n, with chi_n = dL/df_n and g_n = df_n/dtheta, and
    its sign is sign(chi_n) sign(g_n). So f(x) moves by -lr <g(x), sign g_n> sign(chi_n):

    * exact, as gradient descent is, for batches of one example and one output. Two logits under
      cross-entropy count as one output: the loss sees their margin only (``outputs="margin"``);
    * for batches of more examples an approximation: the sign of a sum is not the sum of signs, and
      a kernel of signs cannot tell it. The mean of sign(chi_n) sign(g_n) takes its place. It is
      right in every parameter whose gradients agree in sign over the batch, too short in the
      others, and of the wrong sign where larger gradients are outvoted. Along the true step it
      goes a share (2 / pi) arcsin(B**-0.5) of it for B independent Gaussian gradients: as a rule
      training is predicted to be slower than it is;
    * for several outputs not defined, for the same reason.

    Malladi et al. 2023, A Kernel-Based View of Language Model Fine-Tuning (arXiv 2210.05643), where
    this kernel is the asymmetric SignGD kernel.

    Args:
        K: The kernel (N, N) of one output with entries <g_n, sign g_m>: ``empirical_ntk(...,
            outputs="margin", product="asymmetric")``.
        f0: Outputs of the training examples at the start, (N,) or (N, 1).
        targets: As for `losses.make_loss`.
        learning_rate: lr, above 0.
        batches: Of each step the numbers of its examples, 0 to N - 1: ``[[3], [0], ...]``.
        loss: ``"squared"`` or ``"cross-entropy"`` (of the margin).

    Returns:
        The trajectory at each of 0 .. S steps; its times are lr times steps, its coefficients
        the sums of lr times the signs.

    Raises:
        InputError: For a kernel object of another product or more outputs, or batches out of range.
    """
    if getattr(K, "product", "asymmetric") != "asymmetric":
        raise InputError(
            'sign descent needs the kernel <g, sign g\'>: compute it with product="asymmetric"'
        )
    problem = Problem.of(K, f0, targets, None, loss)
    check_rate(learning_rate)
    examples, outputs = problem.f0.shape
    if outputs > 1:
        raise InputError(
            f"sign descent is defined for one output, not {outputs}: use outputs='margin'"
        )
    coefficients = np.zeros((len(batches) + 1, examples, 1))
    f = np.repeat(problem.f0[None], len(batches) + 1, axis=0)
    for step, batch in enumerate(batches):
        members = _members(batch, examples, step)
        signs = np.zeros((examples, 1))
        np.add.at(signs, members, np.sign(problem.loss.slope(f[step]))[members] / len(members))
        coefficients[step + 1] = coefficients[step] + learning_rate * signs
        f[step + 1] = problem.moved(coefficients[step + 1])
    return problem.trajectory(learning_rate * np.arange(len(batches) + 1.0), f, coefficients)


def _members(batch: ArrayLike, examples: int, step: int) -> NDArray[np.int64]:
    members: NDArray[np.int64] = np.atleast_1d(np.asarray(batch))
    whole = members.ndim == 1 and len(members) > 0 and members.dtype.kind in "iu"
    if not whole or members.min() < 0 or members.max() >= examples:
        raise InputError(f"batch {step} must hold numbers of examples, 0 to {examples - 1}")
    return members
