"""From what the steps of an experiment gave to its typed results, after any of the steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ntk_propulsion.experiment.materials import Materials
from ntk_propulsion.experiment.results import (
    Arrays,
    CertificateFacts,
    Experiment,
    ModelFacts,
    Recording,
    Results,
    SweepResult,
    TrainingRun,
)
from ntk_propulsion.experiment.settings import Settings
from ntk_propulsion.kernels import Kernel
from ntk_propulsion.kernels.outputs import output_goals
from ntk_propulsion.measurements.distances import kernel_distances, kernel_drifts
from ntk_propulsion.measurements.modules import module_comparisons
from ntk_propulsion.measurements.parts import Parts, condensed, parts_of
from ntk_propulsion.measurements.scaling import scaling_summaries
from ntk_propulsion.measurements.summaries import kernel_summaries
from ntk_propulsion.measurements.tables import (
    KernelDistance,
    KernelDrift,
    KernelSummary,
    ModuleComparison,
    ScalingSummary,
)
from ntk_propulsion.models.heads import head_modules
from ntk_propulsion.models.probe import ProbeReport
from ntk_propulsion.models.roles import every_role
from ntk_propulsion.propulsion import scaling_statistics
from ntk_propulsion.runs.environment import Environment
from ntk_propulsion.tasks import example_facts, task_facts
from ntk_propulsion.trajectories import Trajectory
from ntk_propulsion.trajectories.tables import course_distances, course_points, regime_summaries

START = "theta0"
IN_QUESTION = ("full", "propulsion")
"""The kernels that are compared module by module."""


def tuned_point(method: str) -> str:
    """Return where a method's training ends, as results name it."""
    return f"{method}_tuned"


@dataclass(frozen=True)
class Measured:
    """What the steps of an experiment gave so far; only the first three are there at once.

    Attributes:
        kernels: By point (``"theta0"``, then `tuned_point` of each training) and tuning.
        certificate: How those at theta_0 were computed.
        probe: How the head was fitted; None if it was not.
        training: How each fine-tuning went, one whose kernels are there.
        vectors: z after training, (d_out,), by module in the network's order.
        sweeps: How each method's learning rate was chosen.
        recordings: Which trainings were recorded, and what became of them.
        trajectories: The recordings, by method.
    """

    kernels: Mapping[str, Mapping[str, Kernel]]
    certificate: CertificateFacts
    probe: ProbeReport | None
    training: Sequence[TrainingRun] = ()
    vectors: Mapping[str, np.ndarray] = field(default_factory=dict)
    sweeps: Sequence[SweepResult] = ()
    recordings: Sequence[Recording] = ()
    trajectories: Mapping[str, Trajectory] = field(default_factory=dict)


@dataclass(frozen=True)
class _AtPoint:
    """What follows from the kernels at one point."""

    parts: Mapping[str, Parts]
    kernels: Mapping[str, Kernel]
    summaries: tuple[KernelSummary, ...]
    distances: tuple[KernelDistance, ...]
    modules: tuple[ModuleComparison, ...]


class Assembly:
    """Assembles an experiment's results, as often as more is known.

    What follows from the kernels at a point is computed once.
    """

    def __init__(self, settings: Settings, materials: Materials) -> None:
        model = materials.loaded.model
        self._settings, self._materials = settings, materials
        self._head, self._roles = head_modules(model), every_role(model)
        self._targets = output_goals(settings.outputs, materials.task.targets(materials.drawn))
        self._points: dict[str, _AtPoint] = {}
        self._drifts: dict[str, tuple[KernelDrift, ...]] = {}

    def experiment(
        self, measured: Measured, environment: Environment, *, complete: bool = True
    ) -> tuple[Experiment, Arrays]:
        """Return the experiment as far as it is known, and what its figures are drawn from.

        Args:
            measured: What the steps gave.
            environment: What it was computed with.
            complete: Whether all steps are done.
        """
        points = {point: self._at(point, by) for point, by in measured.kernels.items()}
        results = Results(
            model=self._model(measured.probe),
            task=task_facts(self._materials.task),
            examples=example_facts(self._materials.drawn, self._materials.encoding.tokens),
            notes=(*self._materials.notes, *_fallback(measured.certificate.exact_fallback)),
            certificate=measured.certificate,
            kernels=tuple(row for each in points.values() for row in each.summaries),
            distances=tuple(row for each in points.values() for row in each.distances),
            per_module=tuple(row for each in points.values() for row in each.modules),
            drift=tuple(row for run in measured.training for row in self._drift(run.method)),
            training=tuple(measured.training),
            scaling_vectors=_scaling(measured.vectors, self._settings.degree),
            sweeps=tuple(measured.sweeps),
            trajectories=tuple(measured.recordings),
            courses=course_points(measured.trajectories),
            between=course_distances(measured.trajectories),
            regimes=regime_summaries(measured.trajectories),
        )
        kernels = {point: each.kernels for point, each in points.items()}
        arrays = Arrays(kernels, measured.vectors, measured.trajectories)
        return Experiment(self._settings, environment, results, complete), arrays

    def _at(self, point: str, kernels: Mapping[str, Kernel]) -> _AtPoint:
        if point not in self._points:
            parts = {tuning: parts_of(kernel, self._head) for tuning, kernel in kernels.items()}
            full, propulsion = (kernels[name] for name in IN_QUESTION)
            self._points[point] = _AtPoint(
                parts,
                {
                    name: kernel if name in IN_QUESTION else condensed(kernel, self._head)
                    for name, kernel in kernels.items()
                },
                kernel_summaries(point, kernels, parts, self._targets),
                kernel_distances(point, parts, full.num_outputs, self._settings.seed),
                module_comparisons(point, full, propulsion, self._roles),
            )
        return self._points[point]

    def _drift(self, method: str) -> tuple[KernelDrift, ...]:
        if method not in self._drifts:
            before, after = self._points[START], self._points[tuned_point(method)]
            outputs = before.kernels["full"].num_outputs
            self._drifts[method] = kernel_drifts(
                method, before.parts, after.parts, outputs, self._settings.seed
            )
        return self._drifts[method]

    def _model(self, probe: ProbeReport | None) -> ModelFacts:
        loaded = self._materials.loaded
        return ModelFacts(
            name=loaded.name,
            source=loaded.source,
            parameters=sum(p.numel() for p in loaded.model.parameters()),
            head=self._settings.head,
            head_modules=tuple(sorted(self._head)),
            probe=probe,
        )


def _fallback(reasons: Mapping[str, str]) -> Iterator[str]:
    if reasons:
        first = min(reasons)
        more = f" and {len(reasons) - 1} others" if len(reasons) > 1 else ""
        yield f"plain autograd, example by example, did the parameter {first}{more}"


def _scaling(vectors: Mapping[str, np.ndarray], degree: int) -> tuple[ScalingSummary, ...]:
    if not vectors:
        return ()
    tensors = {name: torch.from_numpy(z) for name, z in vectors.items()}
    return scaling_summaries(scaling_statistics(tensors, degree))
