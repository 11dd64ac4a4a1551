"""A recorded training: the kernels at its points, and all that follows from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ntk_propulsion.errors import InputError, unknown
from ntk_propulsion.kernels import Kernel
from ntk_propulsion.measurements.regime import RegimeVerdict, kernel_regime
from ntk_propulsion.measurements.summaries import kernel_summaries
from ntk_propulsion.theory.distances import alignment_distance, compare_kernels
from ntk_propulsion.theory.inputs import Array
from ntk_propulsion.trajectories import files
from ntk_propulsion.trajectories.points import Point, Recorded

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NORMS = ("frobenius",)


@dataclass(frozen=True)
class Quantity:
    """A number that is measured of a recorded training at a step; see `Trajectory.table`.

    Attributes:
        step: How many steps were taken.
        method: What trains.
        kernel: ``"own"`` for what trains, ``"full"`` for K_F at the same parameters, None where the
            quantity is of neither.
        quantity: Its name.
        example: Of one of the N examples, or None for what is of all.
        value: The number.
    """

    step: int
    method: str
    kernel: str | None
    quantity: str
    example: int | None
    value: float


@dataclass(frozen=True, eq=False)
class Trajectory(Recorded):
    """Kernels along a training, at some of its steps, and all that follows from them."""

    @property
    def steps(self) -> list[int]:
        """The recorded steps."""
        return [point.step for point in self.points]

    @property
    def complete(self) -> bool:
        """Whether every point that was asked for is there: not broken off, not diverged."""
        return self.steps == self.settings.get("at", self.steps)

    def at(self, step: int) -> Point:
        """Return the point at a step.

        Raises:
            InputError: It was not recorded.
        """
        if step not in self.steps:
            listed = ", ".join(map(str, self.steps))
            raise InputError(f"step {step} of {self.method} was not recorded; there are {listed}")
        return self.points[self.steps.index(step)]

    def regime(self) -> RegimeVerdict:
        """Judge the training from theta_0 to the last point, by `regime.kernel_regime`."""
        return kernel_regime(self.points[-1].measures)

    def table(self) -> tuple[Quantity, ...]:
        """Return everything that was measured, tidy: ``pandas.DataFrame`` takes it as it is.

        A value that is not defined (an alignment with constant targets) is left out.

        Of the own kernel: ``feature_drift``, ``linearization_error`` and ``feature_velocity``, in
        total and per example. Of both: ``kernel_velocity`` (1 - alignment with the kernel at the
        point before, per step; Fort et al. 2020), the distances to theta_0 that
        `theory.distances.compare_kernels` gives, ``target_alignment`` (centred),
        ``effective_rank``, ``trace``. Of neither: ``parameter_distance``, ``loss``.

        All are without units but for ``trace`` (output**2 / parameter**2), ``parameter_distance``
        (parameter), the velocities (per step) and ``loss``.
        """
        return self._table

    @cached_property
    def _table(self) -> tuple[Quantity, ...]:
        before = (self.points[0], *self.points)
        return (
            *(
                each
                for last, point in zip(before, self.points, strict=False)
                for each in (*self._of_own(point), *self._of_kernels(last, point))
            ),
            *(self._quantity(step, "loss", value) for step, value in self.losses),
        )

    def series(self, quantity: str, kernel: str | None = "own") -> tuple[list[int], Array]:
        """Return the steps at which a quantity of all examples is defined, and its values there.

        Raises:
            InputError: It is defined nowhere.
        """
        found = self.find(quantity, kernel)
        if found is None:
            known = {each.quantity for each in self._table if each.kernel == kernel}
            raise unknown(f"quantity of kernel {kernel!r}", quantity, known)
        return found

    def find(self, quantity: str, kernel: str | None) -> tuple[list[int], Array] | None:
        """Return what `series` does, or None where the quantity is defined nowhere."""
        wanted = (quantity, kernel, None)
        found = {
            each.step: each.value
            for each in self._table
            if (each.quantity, each.kernel, each.example) == wanted
        }
        return (list(found), np.array(list(found.values()))) if found else None

    def per_example(self, quantity: str) -> Array:
        """Return feature_drift, linearization_error or feature_velocity, (points, N).

        Raises:
            InputError: It is none of them.
        """
        known = self.points[0].per_example
        if quantity not in known:
            raise unknown("quantity per example", quantity, known)
        return np.stack([point.per_example[quantity] for point in self.points])

    def plot(self, *others: Trajectory) -> Figure:
        """Draw drift, linearization error, velocity, distance, alignment and rank over steps.

        Args:
            *others: Trajectories to draw beside this one.
        """
        from ntk_propulsion.trajectories.figures import draw_trajectories

        return draw_trajectories([self, *others])

    def plot_changes(self, steps: Sequence[int] | None = None) -> Figure:
        """Draw heat maps of (J_t - J_0)(J_t - J_0)' beside K_0, at some of the steps.

        Args:
            steps: By default four, spread over the recorded ones.
        """
        from ntk_propulsion.trajectories.figures import draw_changes

        return draw_changes(self, steps)

    def save(self, folder: Path | str) -> None:
        """Write the trajectory into a new folder, whole or not at all.

        Raises:
            InputError: There is something in its place, or it cannot be written.
        """
        files.save(self, Path(folder))

    @classmethod
    def load(cls, folder: Path | str) -> Trajectory:
        """Read what `save` wrote, or what a recording has left in its ``output_dir`` so far.

        Raises:
            InputError: It is missing, damaged, or of another format.
        """
        found = files.load(Path(folder))
        return cls(found.method, found.settings, found.targets, found.points, found.losses)

    def _of_own(self, point: Point) -> list[Quantity]:
        measures = point.measures
        totals = {
            "feature_drift": measures.feature_drift,
            "linearization_error": measures.linearization_error,
            "feature_velocity": point.feature_velocity,
        }
        return [
            *(self._quantity(point.step, name, value, "own") for name, value in totals.items()),
            *(
                self._quantity(point.step, name, float(value), "own", example)
                for name, values in point.per_example.items()
                for example, value in enumerate(values)
            ),
            self._quantity(point.step, "parameter_distance", point.parameter_distance),
        ]

    def _of_kernels(self, last: Point, point: Point) -> Iterator[Quantity]:
        """Of both kernels: what they are, and how far they went since theta_0 and the last."""
        parts = {name: {"all": _matrix(kernel)} for name, kernel in point.kernels.items()}
        for found in kernel_summaries(str(point.step), point.kernels, parts, self.targets):
            name = found.tuning
            kernel = point.kernels[name]
            values: dict[str, float | None] = {
                "target_alignment": found.target_alignment,
                "effective_rank": found.effective_rank,
                "trace": found.trace,
                **compare_kernels(kernel, self.points[0].kernels[name], norms=NORMS),
            }
            moved = alignment_distance(kernel, last.kernels[name])
            values["kernel_velocity"] = moved / max(1, point.step - last.step)
            for key, value in values.items():
                if value is not None:
                    yield self._quantity(point.step, key, value, name)

    def _quantity(
        self,
        step: int,
        quantity: str,
        value: float,
        kernel: str | None = None,
        example: int | None = None,
    ) -> Quantity:
        return Quantity(step, self.method, kernel, quantity, example, value)


def _matrix(kernel: Kernel) -> Array:
    return kernel.matrix.double().cpu().numpy()
