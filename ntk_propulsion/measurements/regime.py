"""Is a training in the kernel regime? Its linearization error, its feature drift, and a rule.

With J_0 and J_t the Jacobians of what a tuning trains, before and after training, and C = J_t J_0'
the kernel between the two models, everything follows from three kernels:
(J_t - J_0)(J_t - J_0)' = K_t + K_0 - C - C', and the drift is the root of its trace over K_0's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from ntk_propulsion.kernels import (
    DEFAULT_OPTIONS,
    Kernel,
    Options,
    empirical_ntk,
    linearized_outputs,
    model_outputs,
)
from ntk_propulsion.kernels.batch import Batch
from ntk_propulsion.kernels.outputs import OutputsLike
from ntk_propulsion.kernels.tunings import Tuning, resolve_tuning
from ntk_propulsion.theory.distances import compare_kernels
from ntk_propulsion.theory.inputs import Array, as_array

HOLDS = 0.1
"""At most a tenth: the property holds. Ours: its definition only says approximately."""

WEAKLY = 0.5
"""At most a half: the property holds weakly. Ours, as no source gives a number."""

ROUNDINGS = 8
"""Units of rounding by which a trace of a kernel, or an output, may be wrong. Ours."""


@dataclass(frozen=True, eq=False)
class RegimeMeasures:
    """How far a training left the kernel regime. Errors and drifts are relative, 0 for none.

    What did not move at all has 0; what moved though it was zero before has infinity.

    Attributes:
        tuning: The name of what trains.
        linearization_error: |f_t - f_lin| / |f_t - f_0| over all examples and outputs.
        linearization_per_example: The same for each example, (N,).
        linearization_floor: Below this the error is rounding.
        feature_drift: |J_t - J_0| / |J_0|, Frobenius norms.
        drift_per_example: The same for each example's rows of J, (N,).
        drift_per_module: The same for each module's columns.
        drift_floor: Below this the drift is rounding. The drift is the root of a difference of
            traces, so the floor is of the order of the root of the dtype's rounding: 8e-8 in
            float64, 2e-3 in float32. It is of the whole; parts whose Jacobian grew much have a
            higher one.
        difference: (J_t - J_0)(J_t - J_0)', (N*O, N*O) in float64, for heat maps.
        before: K_0, with its parts by module.
        after: K_t, with its parts by module.
        distances: Of K_t to K_0, by name.
        outputs: f_t, (N, O).
        linearized: f_lin, (N, O).
    """

    tuning: str
    linearization_error: float
    linearization_per_example: Array
    linearization_floor: float
    feature_drift: float
    drift_per_example: Array
    drift_per_module: dict[str, float]
    drift_floor: float
    difference: Array
    before: Kernel
    after: Kernel
    distances: dict[str, float]
    outputs: Array
    linearized: Array


@dataclass(frozen=True)
class RegimeVerdict:
    """What the rule says: each of ``"holds"``, ``"weakly"``, ``"not"`` or ``"undecided"``.

    Attributes:
        linearization: Is the change of the outputs the linearized model's?
        fixed_features: Is the Jacobian after training the one before?
        kernel_regime: The worse of both.
    """

    linearization: str
    fixed_features: str
    kernel_regime: str


def kernel_regime(measures: RegimeMeasures) -> RegimeVerdict:
    """Judge a training by a rule that was written before any was measured.

    Kernel behaviour is linearization and fixed features (Malladi et al. 2023, arXiv 2210.05643).
    Each holds if its measure is at most ``HOLDS``, weakly if at most ``WEAKLY``, else not; it is
    undecided where rounding alone could exceed ``HOLDS``. The verdict is the worse of both. The
    source linearizes each step at its own start; here one expansion at theta_0 carries the whole
    training, which asks for more.
    """
    linearization = _level(measures.linearization_error, measures.linearization_floor)
    features = _level(measures.feature_drift, measures.drift_floor)
    worse = max(linearization, features, key=_LEVELS.index)
    return RegimeVerdict(linearization, features, worse)


_LEVELS = ("holds", "weakly", "undecided", "not")


def _level(value: float, floor: float) -> str:
    if value <= floor and floor > HOLDS:
        return "undecided"
    if value <= HOLDS:
        return "holds"
    return "weakly" if value <= WEAKLY else "not"


def measure_regime(
    model0: nn.Module,
    model_t: nn.Module,
    batch: Batch,
    tuning: str | Tuning = "full",
    outputs: OutputsLike = "logits",
    *,
    options: Options = DEFAULT_OPTIONS,
    before: Kernel | None = None,
) -> RegimeMeasures:
    """Measure linearization and feature drift between a model before and after training, exactly.

    Three kernels (before, after, and between the two models) and one linearized pass. The
    linearization follows every parameter that moved, the drift what ``tuning`` trains: give the
    tuning that the training had.

    Args:
        model0: At theta_0.
        model_t: At theta_t, the same architecture; ``model0`` itself for no training at all, which
            costs one kernel. Both come back as they were.
        batch: The dict that the models take, N examples.
        tuning: What trains.
        outputs: As in :func:`ntk_propulsion.empirical_ntk`.
        options: Of the kernels and of the linearized model; float64 resolves small drifts.
        before: K_0 with its parts by module, where it is known from an earlier call with the same
            model, batch and tuning.

    Raises:
        InputError: Bad batch, tuning or outputs; models of different parameters; Jacobians that
            vanish before training, or after.
    """
    work = options.compute_dtype(model0, model_t)
    options = replace(options, dtype=work)
    trains = resolve_tuning(tuning)

    def kernel_of(model: nn.Module, other: nn.Module | None = None) -> Kernel:
        found = empirical_ntk(
            model,
            batch,
            [trains],
            outputs,
            other_model=other,
            per_module=True,
            options=options,
        )
        return found[trains.name]

    if model_t is model0:
        before = kernel_of(model0) if before is None else before
        cross = after = before
        f_0 = f_t = f_lin = as_array(model_outputs(model0, batch, outputs, options=options), "f_0")
    else:
        cross = kernel_of(model_t, model0)  # first: it refuses models that do not match
        before, after = kernel_of(model0) if before is None else before, kernel_of(model_t)
        f_0, f_t = (
            as_array(model_outputs(model, batch, outputs, options=options), name)
            for model, name in ((model0, "f_0"), (model_t, "f_t"))
        )
        linear = linearized_outputs(model0, model_t, batch, outputs, options=options)
        f_lin = as_array(linear, "f_lin")
    error, moved = f_t - f_lin, f_t - f_0
    rounding = ROUNDINGS * torch.finfo(work).eps
    noise = rounding * max(np.linalg.norm(f_0), np.linalg.norm(f_t))
    K_0, K_t, C = (as_array(kernel, kernel.tuning) for kernel in (before, after, cross))
    traces = np.trace(K_0) + np.trace(K_t) + 2 * abs(np.trace(C))
    return RegimeMeasures(
        tuning=trains.name,
        linearization_error=float(relative_change((error**2).sum(), (moved**2).sum())),
        linearization_per_example=relative_change((error**2).sum(1), (moved**2).sum(1)),
        linearization_floor=float(relative_change(noise**2, (moved**2).sum())),
        feature_drift=_drift(before.matrix, after.matrix, cross.matrix).item(),
        drift_per_example=_drift(before.matrix, after.matrix, cross.matrix, before.num_examples),
        drift_per_module=_module_drifts(before, after, cross),
        drift_floor=float(relative_change(rounding * traces, np.trace(K_0))),
        difference=(K_t + K_0) - (C + C.T),
        before=before,
        after=after,
        distances=compare_kernels(after, before),
        outputs=f_t,
        linearized=f_lin,
    )


def _drift(K_0: Tensor, K_t: Tensor, C: Tensor, examples: int = 1) -> Array:
    """Return |J_t - J_0| / |J_0| of each of so many equal groups of rows, from the diagonals."""
    k_0, k_t, c = (as_array(K.diagonal(), "K").reshape(examples, -1) for K in (K_0, K_t, C))
    return relative_change((k_t + k_0 - 2 * c).sum(1), k_0.sum(1))


def _module_drifts(before: Kernel, after: Kernel, cross: Kernel) -> dict[str, float]:
    zero = torch.zeros_like(before.matrix)  # of a module that one of the models never reaches

    def drift(module: str) -> float:
        K_0, K_t, C = (k.per_module.get(module, zero) for k in (before, after, cross))
        return _drift(K_0, K_t, C).item()

    return {module: drift(module) for module in {**before.per_module, **after.per_module}}


def relative_change(change: ArrayLike, size: ArrayLike) -> Array:
    """Return the root of change / size, squares both: 0 where nothing changed, even of nothing."""
    change, size = np.maximum(change, 0.0), np.asarray(size)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(change > 0, np.sqrt(change / size), 0.0)
