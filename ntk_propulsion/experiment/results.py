"""What an experiment found, as frozen dataclasses: report.json is written from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ntk_propulsion.experiment.settings import Settings
from ntk_propulsion.kernels import Kernel
from ntk_propulsion.measurements.tables import (
    KernelDistance,
    KernelDrift,
    KernelSummary,
    ModuleComparison,
    ScalingSummary,
)
from ntk_propulsion.models.probe import ProbeReport
from ntk_propulsion.runs.environment import Environment
from ntk_propulsion.tasks import ExampleFacts, TaskFacts
from ntk_propulsion.training.sweep import Trial
from ntk_propulsion.trajectories import CourseDistance, Trajectory
from ntk_propulsion.trajectories.tables import CoursePoint, RegimeSummary

SCHEMA = 2


@dataclass(frozen=True)
class ModelFacts:
    """The model that an experiment is of.

    Attributes:
        name: What it was asked for by.
        source: Where it came from, in words.
        parameters: How many numbers it has.
        head: ``"probe"``, ``"random"`` or ``"checkpoint"``.
        head_modules: The modules of the head.
        probe: How the head was fitted; None if it was not.
    """

    name: str
    source: str
    parameters: int
    head: str
    head_modules: tuple[str, ...]
    probe: ProbeReport | None


@dataclass(frozen=True)
class CertificateFacts:
    """How the kernels at theta_0 were computed.

    Attributes:
        plan: Rounds of passes, chunks and memory, in words.
        certificate: The largest relative error against autograd.
        exact_fallback: Parameters that plain autograd did, with the reason.
    """

    plan: str
    certificate: float
    exact_fallback: dict[str, str]


@dataclass(frozen=True)
class TrainingRun:
    """One fine-tuning.

    Attributes:
        method: Full or Propulsion.
        steps: How many were taken.
        learning_rate: The peak.
        degree: Propulsion's k.
        trainable_parameters: How many numbers were trained.
        metric_before: The task's metric on the test examples at theta_0; None where not defined.
        metric_after: And after the training.
        losses: (step, loss of its batch before the step).
        seconds: Time in steps.
    """

    method: str
    steps: int
    learning_rate: float
    degree: int | None
    trainable_parameters: int
    metric_before: float | None
    metric_after: float | None
    losses: tuple[tuple[int, float], ...]
    seconds: float


@dataclass(frozen=True)
class SweepResult:
    """How a method's learning rate was chosen.

    Attributes:
        method: Its name.
        chosen: The learning rate.
        given: Whether it was given, and nothing was tried.
        at_edge: Whether the choice is the least or largest that was tried.
        steps: Of each trial.
        examples: Validation examples.
        trials: What was tried.
    """

    method: str
    chosen: float
    given: bool
    at_edge: bool = False
    steps: int = 0
    examples: int = 0
    trials: tuple[Trial, ...] = ()


@dataclass(frozen=True)
class Recording:
    """A training whose kernels were recorded.

    Attributes:
        method: Its name.
        learning_rate: The peak.
        examples: How many examples the kernels are of.
        steps: The recorded steps.
        diverged: What became of it, empty where it did not diverge.
    """

    method: str
    learning_rate: float
    examples: int
    steps: tuple[int, ...]
    diverged: str = ""


@dataclass(frozen=True)
class Results:
    """Everything that was measured, table by table; what is not known yet is empty.

    Attributes:
        model: What the kernels are of.
        task: And on what.
        examples: The N examples, in the kernels' order.
        notes: What the reader should know.
        certificate: How the kernels at theta_0 were computed.
        kernels: Size and spectrum of each kernel.
        distances: How far each kernel is from full fine-tuning's.
        per_module: Propulsion's kernel against full fine-tuning's, module by module.
        drift: How far each kernel went in each training.
        training: The fine-tunings.
        scaling_vectors: z after training, by module; the last row is of all.
        sweeps: How learning rates were chosen.
        trajectories: The trainings whose kernels were recorded.
        courses: Every quantity at every recorded step.
        between: Distances between recorded trainings at equal steps.
        regimes: Whether each recorded training stayed in the kernel regime.
    """

    model: ModelFacts
    task: TaskFacts
    examples: tuple[ExampleFacts, ...]
    notes: tuple[str, ...]
    certificate: CertificateFacts
    kernels: tuple[KernelSummary, ...]
    distances: tuple[KernelDistance, ...]
    per_module: tuple[ModuleComparison, ...]
    drift: tuple[KernelDrift, ...] = ()
    training: tuple[TrainingRun, ...] = ()
    scaling_vectors: tuple[ScalingSummary, ...] = ()
    sweeps: tuple[SweepResult, ...] = ()
    trajectories: tuple[Recording, ...] = ()
    courses: tuple[CoursePoint, ...] = ()
    between: tuple[CourseDistance, ...] = ()
    regimes: tuple[RegimeSummary, ...] = ()


@dataclass(frozen=True)
class Experiment:
    """An experiment: what was asked for, where it was computed, what was found.

    Attributes:
        config: What the results depend on.
        environment: Versions, machine, time and memory.
        results: All tables.
        complete: Whether all steps are done; False in a report that still grows.
        schema: The version of this form.
    """

    config: Settings
    environment: Environment
    results: Results
    complete: bool = True
    schema: int = field(default=SCHEMA)


@dataclass(frozen=True, eq=False)
class Arrays:
    """What an experiment's figures are drawn from, beside its tables.

    Attributes:
        kernels: By point (``"theta0"``, ``"full_tuned"``, ``"propulsion_tuned"``), then tuning; all
            can be split by the head, those of full fine-tuning and Propulsion module by module.
        vectors: z after training, (d_out,), by module in the network's order; empty where nothing
            was trained.
        trajectories: Recorded trainings by method.
    """

    kernels: Mapping[str, Mapping[str, Kernel]]
    vectors: Mapping[str, np.ndarray]
    trajectories: Mapping[str, Trajectory]
