"""What a report keeps of trajectories: plain rows of everything that is of all examples."""

from __future__ import annotations

from collections.abc import Mapping

from ntk_propulsion.trajectories.compare import compare_trajectories
from ntk_propulsion.trajectories.trajectory import Row, Trajectory

BETWEEN = ("alignment", "cka", "best_scale_error", "relative_frobenius")


def course_rows(trajectories: Mapping[str, Trajectory]) -> list[Row]:
    """Return every trajectory's quantities of all examples, as `Trajectory.table` has them."""
    return [
        {key: value for key, value in row.items() if key != "example"}
        for trajectory in trajectories.values()
        for row in trajectory.table()
        if row["example"] is None and row["quantity"] != "loss"
    ]


def between_rows(trajectories: Mapping[str, Trajectory], reference: str = "full") -> list[Row]:
    """Return each other method's distances from the reference at equal steps.

    Empty where the reference was not recorded. Quantities: those of ``BETWEEN``. Kernels:
    ``"own-full"`` and ``"full"``, as `compare_trajectories` names them; what full fine-tuning
    trains is K_F, so that ``"own"`` would repeat the first.
    """
    if reference not in trajectories:
        return []
    return [
        row
        for name, trajectory in trajectories.items()
        if name != reference
        for row in compare_trajectories(trajectory, trajectories[reference])
        if row["quantity"] in BETWEEN and row["kernel"] != "own"
    ]


def regime_rows(trajectories: Mapping[str, Trajectory]) -> list[Row]:
    """Return the verdict of `regime.kernel_regime` on each training, with its two measures.

    ``step`` is the last that was recorded; a training that was recorded at theta_0 only has none.
    """
    rows = []
    for trajectory in trajectories.values():
        last = trajectory.points[-1]
        if last.step == 0:
            continue
        verdict = trajectory.regime()
        errors = last.measures.linearization_per_example
        drifts = last.measures.drift_per_example
        rows.append(
            {
                "method": trajectory.method,
                "step": last.step,
                "learning_rate": trajectory.settings["learning_rate"],
                "linearization_error": last.measures.linearization_error,
                "linearization_least": float(errors.min()),
                "linearization_most": float(errors.max()),
                "feature_drift": last.measures.feature_drift,
                "drift_least": float(drifts.min()),
                "drift_most": float(drifts.max()),
                "linearization": verdict.linearization,
                "fixed_features": verdict.fixed_features,
                "kernel_regime": verdict.kernel_regime,
            }
        )
    return rows
