"""Training predicted from the kernel: gradient flow and gradient descent.

The model is taken as linear in its parameters, f(x) = f_0(x) + J(x) (theta - theta_0): exact for
linear models, and in the limit of wide ones (Jacot et al. 2018, arXiv 1806.07572; Lee et al. 2019,
arXiv 1902.06720). Then training moves theta by -J(X)' a_t, where the coefficients a_t (N*O) are the
loss slopes dL/df of the training examples, added up over the training, and

    f_t(x) = f_0(x) - K(x, X) a_t        for every x, of the training examples or not.

Time is that of gradient flow, d theta / dt = -dL / d theta: a step of gradient descent with
learning rate lr takes lr units of it. Losses are means over examples: see `losses`.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike
from scipy.integrate import solve_ivp

from ntk_propulsion.errors import InputError
from ntk_propulsion.theory.distances import norm
from ntk_propulsion.theory.inputs import Array, KernelLike
from ntk_propulsion.theory.losses import SquaredLoss
from ntk_propulsion.theory.spectrum import RTOL, is_symmetric
from ntk_propulsion.theory.trajectory import Problem, Trajectory, check_rate


def positive_modes(matrix: Array, rtol: float | None = None) -> tuple[Array, Array] | None:
    """Return the eigenvalues (R,), largest first, and eigenvectors (n, R) outside the null space.

    Args:
        matrix: A square kernel.
        rtol: Eigenvalues up to rtol times the largest are null; n times float64's rounding by
            default. Negative ones down to -1e-6 times the largest pass for rounding, and are null.

    Returns:
        None where the kernel is not symmetric or not positive semi-definite.
    """
    if not is_symmetric(matrix):
        return None
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    if values[0] < -RTOL * max(values[-1], 0.0):
        return None
    null = len(matrix) * np.finfo(float).eps if rtol is None else rtol
    kept = values > null * values[-1]
    return values[kept][::-1], vectors[:, kept][:, ::-1]


def gradient_flow(
    K: KernelLike,
    f0: ArrayLike,
    targets: ArrayLike,
    times: ArrayLike,
    outputs: int | None = None,
    *,
    loss: str = "squared",
    rtol: float = 1e-10,
) -> Trajectory:
    """Return the outputs under gradient flow, da/dt = dL/df(f_0 - K a).

    On squared loss in closed form, f_t = y + exp(-2 K t / N) (f_0 - y): by eigenvectors for
    positive semi-definite kernels, by the matrix exponential for others. On cross-entropy by an
    ODE solver that switches to implicit steps where the equation is stiff (LSODA).

    Args:
        K: The kernel of the training examples (N*O, N*O), symmetric or not.
        f0: Their outputs at the start, (N, O), or (N,) where O = 1.
        targets: As for `losses.make_loss`.
        times: (T,), ascending from 0 or later. On squared loss infinity is the limit of training.
        outputs: O, where the kernel is not an object that knows it; 1 by default.
        loss: ``"squared"`` or ``"cross-entropy"``.
        rtol: Of the ODE solver, relative to the change of the outputs (cross-entropy only).

    Raises:
        InputError: For arguments that do not fit, times out of order, or a flow that diverges.
    """
    problem, t = Problem.of(K, f0, targets, outputs, loss), _ascending(times, "times")
    if not isinstance(problem.loss, SquaredLoss):
        return _integrated(problem, t, rtol)
    modes = positive_modes(problem.K)
    if modes is None:
        return _by_exponentials(problem, t)
    return _by_modes(problem, t, modes, -np.expm1(-problem.loss.curvature * np.outer(t, modes[0])))


def gradient_descent(
    K: KernelLike,
    f0: ArrayLike,
    targets: ArrayLike,
    learning_rate: float,
    steps: ArrayLike,
    outputs: int | None = None,
    *,
    loss: str = "squared",
    momentum: float = 0.0,
) -> Trajectory:
    """Return the outputs under full-batch gradient descent, a <- a + lr dL/df(f_0 - K a).

    On squared loss without momentum in closed form for positive semi-definite kernels, f_s = y +
    (1 - 2 lr K / N)**s (f_0 - y); else step by step. Momentum is torch.optim.SGD's: v <- momentum v
    + slope, a <- a + lr v.

    Args:
        K: The kernel of the training examples (N*O, N*O), symmetric or not.
        f0: Their outputs at the start, (N, O), or (N,) where O = 1.
        targets: As for `losses.make_loss`.
        learning_rate: lr, above 0; `convergence.stable_rate` gives the largest stable one.
        steps: Numbers of steps to report, ascending from 0 or later; ``range(101)`` for each.
        outputs: O, where the kernel is not an object that knows it; 1 by default.
        loss: ``"squared"`` or ``"cross-entropy"``.
        momentum: In [0, 1).

    Raises:
        InputError: For arguments that do not fit, or outputs that overflow.
    """
    problem, counts = Problem.of(K, f0, targets, outputs, loss), _ascending(steps, "steps")
    check_rate(learning_rate)
    if not 0 <= momentum < 1:
        raise InputError(f"momentum lies in [0, 1), not at {momentum}")
    if not np.isfinite(counts).all() or (counts != np.floor(counts)).any():
        raise InputError("steps are whole numbers")
    if isinstance(problem.loss, SquaredLoss) and not momentum:
        modes = positive_modes(problem.K)
        if modes is not None:
            gone = _vanished(learning_rate * problem.loss.curvature * modes[0], counts)
            return _by_modes(problem, learning_rate * counts, modes, gone)
    return _step_by_step(problem, learning_rate, counts.astype(int), momentum)


def _vanished(shrinkage: Array, steps: Array) -> Array:
    """Return 1 - (1 - x)**s, (T, R), for shrinkages x (R,) and steps s (T,): to rounding at x ~ 0.

    Overflow gives infinite values, without a warning.
    """
    x, s = np.atleast_2d(shrinkage), steps[:, None]
    with np.errstate(over="ignore"):
        return np.where(
            x < 0.5, -np.expm1(s * np.log1p(-np.minimum(x, 0.5))), 1 - np.power(1 - x, s)
        )


def _ascending(values: ArrayLike, name: str) -> Array:
    """Return times or steps; unlike other inputs they may be infinite."""
    t = np.asarray(values, dtype=np.float64)
    if t.ndim != 1 or not len(t) or not (t >= 0).all() or (t[1:] < t[:-1]).any():
        raise InputError(f"{name} are a list of numbers that ascend from 0 or later")
    return t


def _by_modes(
    problem: Problem, times: Array, modes: tuple[Array, Array], gone: Array
) -> Trajectory:
    """Return squared loss's trajectory from the share (T, R) of each mode's residual that is gone.

    Outputs come from the modes and not from the coefficients, which are large where eigenvalues
    are small.
    """
    values, vectors = modes
    with np.errstate(over="ignore", invalid="ignore"):
        part = gone * (vectors.T @ (problem.f0 - problem.loss.targets).ravel())
        return problem.trajectory(
            times, problem.f0.ravel() - part @ vectors.T, (part / values) @ vectors.T
        )


def _by_exponentials(problem: Problem, times: Array) -> Trajectory:
    """Return squared loss's flow under any kernel: a_t is the integral of c exp(-c K s) r_0."""
    residual = (problem.f0 - problem.loss.targets).ravel()
    n = len(residual)
    generator = np.zeros((n + 1, n + 1))
    generator[:n, :n] = -problem.loss.curvature * problem.K
    generator[:n, n] = problem.loss.curvature * residual
    left, coefficients = np.empty((2, len(times), n))
    for i, t in enumerate(times):
        if np.isinf(t):
            left[i], coefficients[i] = 0, _limit(problem.K, residual)
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            flow = scipy.linalg.expm(t * generator)
            left[i], coefficients[i] = flow[:n, :n] @ residual, flow[:n, n]
    return problem.trajectory(times, problem.loss.targets.ravel() + left, coefficients)


def _limit(K: Array, residual: Array) -> Array:
    if scipy.linalg.eigvals(K).real.min() <= 0:
        raise InputError(
            "the flow has no limit: the kernel has eigenvalues with real parts of 0 or below"
        )
    return np.asarray(np.linalg.solve(K, residual), dtype=np.float64)


def _step_by_step(
    problem: Problem, learning_rate: float, counts: Array, momentum: float
) -> Trajectory:
    f, a, velocity = problem.f0, np.zeros_like(problem.f0), np.zeros_like(problem.f0)
    outputs, coefficients = np.empty((2, len(counts), *f.shape))
    done = 0
    with np.errstate(over="ignore", invalid="ignore"):
        for i, count in enumerate(counts):
            for _ in range(count - done):
                velocity = momentum * velocity + problem.loss.slope(f)
                a = a + learning_rate * velocity
                f = problem.moved(a)
            outputs[i], coefficients[i], done = f, a, count
    return problem.trajectory(learning_rate * counts, outputs, coefficients)


def _integrated(problem: Problem, times: Array, rtol: float) -> Trajectory:
    """Return the flow of any loss by LSODA, in the coefficients times |K|_op: of outputs' size."""
    if np.isinf(times).any():
        raise InputError("on cross-entropy the flow is followed to finite times only")
    size = norm(problem.K, "spectral") or 1.0
    unit, (examples, outputs) = problem.K / size, problem.f0.shape

    def reached(b: Array) -> Array:
        return problem.f0 - (unit @ b).reshape(examples, outputs)

    def slope(t: float, b: Array) -> Array:
        return size * problem.loss.slope(reached(b)).ravel()

    def jacobian(t: float, b: Array) -> Array:
        columns = unit.reshape(examples, outputs, -1)
        return -size * (problem.loss.hessian(reached(b)) @ columns).reshape(unit.shape)

    solved = solve_ivp(
        slope,
        (0.0, times[-1]),
        np.zeros(len(unit)),
        method="LSODA",
        t_eval=times,
        jac=jacobian,
        rtol=rtol,
        atol=rtol,
    )
    if not solved.success:
        raise InputError(f"the flow cannot be followed to time {times[-1]:g}: {solved.message}")
    moved = np.stack([reached(b) for b in solved.y.T])
    return problem.trajectory(times, moved, solved.y.T / size)
