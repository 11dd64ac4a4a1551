"""What a recording keeps: its points, and what the training was."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ntk_propulsion.kernels import Kernel
from ntk_propulsion.measurements.regime import RegimeMeasures
from ntk_propulsion.theory.inputs import Array


@dataclass(frozen=True, eq=False)
class Point:
    """What is kept of a training at one step.

    Attributes:
        step: How many steps were taken.
        measures: Linearization and drift of what trains, from theta_0 to here, with K_0 and K_t of
            it; parts by module are numbers only.
        full: K_F at these parameters, gains and adapters folded into the weights.
        outputs: f(theta_t), (N, O).
        linearized: f_0 + J_0 (theta_t - theta_0), (N, O).
        parameter_distance: |theta_t - theta_0| of what trains.
        feature_velocity: |J_t - J_s| / |J_0| per step since the point before, s: how fast the drift
            can grow. 0 at theta_0. Below `measures.drift_floor` over the steps it is rounding.
        velocity_per_example: The same for each example's rows of J, (N,).
    """

    step: int
    measures: RegimeMeasures
    full: Kernel
    outputs: Array
    linearized: Array
    parameter_distance: float
    feature_velocity: float
    velocity_per_example: Array

    @property
    def per_example(self) -> dict[str, Array]:
        """What is measured of what trains, for each example, (N,)."""
        return {
            "feature_drift": self.measures.drift_per_example,
            "linearization_error": self.measures.linearization_per_example,
            "feature_velocity": self.velocity_per_example,
        }

    @property
    def own(self) -> Kernel:
        """The kernel of what trains, at these parameters."""
        return self.measures.after

    @property
    def kernels(self) -> dict[str, Kernel]:
        """The kernel of what trains, ``"own"``, and of all weights, ``"full"``."""
        return {"own": self.own, "full": self.full}


@dataclass(frozen=True, eq=False)
class Recorded:
    """A recorded training, whole or so far.

    Attributes:
        method: The name of what trained.
        settings: What the training was, as JSON holds it: learning rate, steps, batch size ...
        targets: Of the kernels' examples, as `theory.regression.as_targets` takes them, or None.
        points: In the order of their steps, the first at theta_0.
        losses: (step, mean loss of its batch before it), of the steps that were seen.
    """

    method: str
    settings: dict[str, Any]
    targets: Array | None
    points: tuple[Point, ...]
    losses: list[tuple[int, float]] = field(default_factory=list)
