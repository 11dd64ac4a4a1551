"""What a report keeps of trajectories: everything that is of all examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ntk_propulsion.theory.distances import leading
from ntk_propulsion.trajectories.compare import CourseDistance, compare_trajectories
from ntk_propulsion.trajectories.trajectory import Trajectory


@dataclass(frozen=True)
class CoursePoint:
    """A quantity of a recorded training at a step, over all examples; see `Trajectory.table`.

    Attributes:
        step: How many steps were taken.
        method: What trains.
        kernel: ``"own"`` for what trains, ``"full"`` for K_F there, None where it is of neither.
        quantity: Its name.
        value: The number; None if it is infinite.
    """

    step: int
    method: str
    kernel: str | None
    quantity: str
    value: float | None


@dataclass(frozen=True)
class RegimeSummary:
    """Whether a recorded training stayed in the kernel regime, with its two measures.

    Attributes:
        method: What trained.
        step: The last that was recorded.
        learning_rate: The peak.
        linearization_error: |f_t - f_lin| / |f_t - f_0| over all examples; None if infinite.
        linearization_least: The least of an example.
        linearization_most: The most of an example.
        feature_drift: |J_t - J_0| / |J_0| over all examples; None if infinite.
        drift_least: The least of an example.
        drift_most: The most of an example.
        linearization: ``"holds"``, ``"weakly"``, ``"not"`` or ``"undecided"``, as
            `measurements.regime.kernel_regime` judges it.
        fixed_features: The same.
        kernel_regime: The worse of both.
    """

    method: str
    step: int
    learning_rate: float
    linearization_error: float | None
    linearization_least: float | None
    linearization_most: float | None
    feature_drift: float | None
    drift_least: float | None
    drift_most: float | None
    linearization: str
    fixed_features: str
    kernel_regime: str


def course_points(trajectories: Mapping[str, Trajectory]) -> tuple[CoursePoint, ...]:
    """Return every trajectory's quantities of all examples, as `Trajectory.table` has them."""
    return tuple(
        CoursePoint(found.step, found.method, found.kernel, found.quantity, found.value)
        for trajectory in trajectories.values()
        for found in trajectory.table()
        if found.example is None and found.quantity != "loss"
    )


def course_distances(
    trajectories: Mapping[str, Trajectory], reference: str = "full"
) -> tuple[CourseDistance, ...]:
    """Return each other method's distances from the reference at equal steps.

    Empty where the reference was not recorded. Quantities: those of `theory.distances.leading`.
    Kernels: ``"own-full"`` and ``"full"``, as `compare_trajectories` names them; what full
    fine-tuning trains is K_F, so that ``"own"`` would repeat the first.
    """
    if reference not in trajectories:
        return ()
    return tuple(
        distance
        for name, trajectory in trajectories.items()
        if name != reference
        for distance in compare_trajectories(trajectory, trajectories[reference])
        if distance.quantity in leading() and distance.kernel != "own"
    )


def regime_summaries(trajectories: Mapping[str, Trajectory]) -> tuple[RegimeSummary, ...]:
    """Return the verdict on each training; one that was recorded at theta_0 only has none."""
    moved = [t for t in trajectories.values() if t.points[-1].step > 0]
    return tuple(_summary(trajectory) for trajectory in moved)


def _summary(trajectory: Trajectory) -> RegimeSummary:
    last, verdict = trajectory.points[-1], trajectory.regime()
    errors, drifts = last.measures.linearization_per_example, last.measures.drift_per_example
    return RegimeSummary(
        method=trajectory.method,
        step=last.step,
        learning_rate=trajectory.settings["learning_rate"],
        linearization_error=last.measures.linearization_error,
        linearization_least=float(errors.min()),
        linearization_most=float(errors.max()),
        feature_drift=last.measures.feature_drift,
        drift_least=float(drifts.min()),
        drift_most=float(drifts.max()),
        linearization=verdict.linearization,
        fixed_features=verdict.fixed_features,
        kernel_regime=verdict.kernel_regime,
    )
