"""What is measured of a training at one of its steps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import nn

from ntk_propulsion.kernels import Kernel, Options, displacement, empirical_ntk, model_outputs
from ntk_propulsion.kernels.batch import Batch, batch_size
from ntk_propulsion.kernels.outputs import OutputsLike
from ntk_propulsion.kernels.tunings import Full, Trainable, Tuning
from ntk_propulsion.measurements.regime import RegimeMeasures, measure_regime, relative_change
from ntk_propulsion.theory.inputs import Array, as_array
from ntk_propulsion.training.methods import plain_model
from ntk_propulsion.trajectories.points import Point


@dataclass(frozen=True)
class Reached:
    """A point, and the model at it.

    Attributes:
        point: The point.
        model: Ready to train, as the model at theta_0 is.
    """

    point: Point
    model: nn.Module


@dataclass(frozen=True)
class Measure:
    """Measures a model as it trains, at every point in the same way.

    Attributes:
        start: The model at theta_0; what the method trains requires a gradient.
        method: The method's name.
        batch: What the model takes, N examples.
        outputs: As in :func:`ntk_propulsion.empirical_ntk`.
        options: Of the kernels and of the linearized model.
    """

    start: nn.Module
    method: str
    batch: Batch
    outputs: OutputsLike
    options: Options

    def values(self, model: nn.Module) -> Array:
        """Return a model's outputs, (N, O) in float64, finite or not."""
        found = model_outputs(model, self.batch, self.outputs, options=self.options)
        return found.detach().to("cpu", torch.float64).numpy()

    def point(self, now: nn.Module, step: int, last: Reached | None = None) -> Point:
        """Measure the model after so many steps; it comes back as it was.

        Args:
            now: Of the same parameters as `start`, and `start` itself at theta_0.
            step: How many steps it has taken.
            last: The point before; None at theta_0.

        Raises:
            InputError: As `regime.measure_regime`.
        """
        measures = measure_regime(
            self.start,
            now,
            self.batch,
            self._own,
            self.outputs,
            options=self.options,
            before=self._before,
        )
        moved = displacement(self.start, now, torch.float64).values()
        velocities = np.zeros(1 + batch_size(self.batch))
        if last is not None:
            velocities = self._changes(now, measures, last) / (step - last.point.step)
        return Point(
            step=step,
            measures=_lean(measures),
            full=self._full(now, measures.after),
            outputs=measures.outputs,
            linearized=measures.linearized,
            parameter_distance=float(sum(float(change.square().sum()) for change in moved) ** 0.5),
            feature_velocity=float(velocities[0]),
            velocity_per_example=velocities[1:],
        )

    @cached_property
    def _before(self) -> Kernel:
        """K_0 with its parts by module: the same at every point."""
        return self._kernel(self.start, self._own, per_module=True)

    @property
    def _own(self) -> Tuning:
        return Trainable(self.method)

    def _kernel(
        self,
        model: nn.Module,
        tuning: Tuning,
        other: nn.Module | None = None,
        *,
        per_module: bool = False,
    ) -> Kernel:
        found = empirical_ntk(
            model,
            self.batch,
            tuning,
            self.outputs,
            other_model=other,
            per_module=per_module,
            options=self.options,
        )
        return found[tuning.name]

    def _full(self, now: nn.Module, own: Kernel) -> Kernel:
        """Return K_F with gains and adapters folded into the weights."""
        plain = plain_model(now)
        if plain is now and all(p.requires_grad for p in now.parameters()):
            return _without_parts(replace(own, tuning="full"))
        return self._kernel(plain, Full())

    def _changes(self, now: nn.Module, measures: RegimeMeasures, last: Reached) -> Array:
        """Return |J_t - J_s| / |J_0| since the point before: of all, then of each example.

        Since theta_0 it is the drift itself; else it takes the kernel between the two models, as
        |J_t - J_s|**2 = tr(K_t + K_s - C - C').
        """
        if last.point.step == 0:
            return np.array([measures.feature_drift, *measures.drift_per_example])
        cross = self._kernel(now, self._own, last.model)
        after, before, mixed = (self._rows(k) for k in (measures.after, last.point.own, cross))
        change, size = after + before - 2 * mixed, self._rows(measures.before)
        return relative_change(np.array([change.sum(), *change]), np.array([size.sum(), *size]))

    def _rows(self, kernel: Kernel) -> Array:
        """Return <J_n, J'_n> of each example's own rows, (N,)."""
        diagonal = as_array(kernel.matrix.diagonal(), "K")
        return diagonal.reshape(batch_size(self.batch), -1).sum(1)


def _lean(measures: RegimeMeasures) -> RegimeMeasures:
    """Return the measures without kernels by module, of which there is one for each point."""
    before, after = _without_parts(measures.before), _without_parts(measures.after)
    return replace(measures, before=before, after=after)


def _without_parts(kernel: Kernel) -> Kernel:
    return replace(kernel, per_module={})
