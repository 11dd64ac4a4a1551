"""What an audit found, as frozen dataclasses: report.json is written from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ntk_propulsion.auditing.checkpoint import AuditedCheckpoint
from ntk_propulsion.auditing.judgements import NamedVerdict
from ntk_propulsion.auditing.settings import AuditSettings
from ntk_propulsion.auditing.tables import VectorComparison
from ntk_propulsion.kernels import Kernel
from ntk_propulsion.runs.environment import Environment
from ntk_propulsion.tasks import ExampleFacts, TaskFacts

SCHEMA = 2


@dataclass(frozen=True)
class AuditedBase:
    """The base: what was tuned.

    Attributes:
        name: What it was asked for by.
        path: Where it lies.
        form: What kind of files it is.
        tensors: How many it holds.
        parameters: How many numbers these hold together.
        notes: What the user should know, a sentence each.
    """

    name: str
    path: str
    form: str
    tensors: int
    parameters: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class AuditResults:
    """Everything that was found.

    Attributes:
        answer: The verdict in plain words, and the three things most worth knowing.
        base: What was tuned.
        task: What kernels were computed on; None without one.
        examples: Of the kernels.
        checkpoints: In the order given.
        comparison: The scaling vectors of every two checkpoints.
    """

    answer: tuple[str, ...]
    base: AuditedBase
    task: TaskFacts | None
    examples: tuple[ExampleFacts, ...]
    checkpoints: tuple[AuditedCheckpoint, ...]
    comparison: tuple[VectorComparison, ...]


@dataclass(frozen=True)
class AuditRecord:
    """What an audit's report.json holds.

    Attributes:
        schema: The version of this form.
        config: What the results depend on.
        environment: Versions, machine, time and memory.
        results: Everything that was found.
        verdicts: The answers to all questions about all checkpoints.
    """

    schema: int
    config: AuditSettings
    environment: Environment
    results: AuditResults
    verdicts: tuple[NamedVerdict, ...]


@dataclass(frozen=True, eq=False)
class Audit:
    """An audit: what was asked for, where it was computed, what was found.

    Attributes:
        config: What it depends on.
        environment: Versions, machine, time and memory.
        results: Everything that was found.
        vectors: The scaling vectors of each checkpoint, (d_out,) by module.
        kernels: The kernels of each checkpoint, by point, ``"base"`` and ``"tuned"``, then tuning;
            empty without a task. Their parts outside the head are added up.
    """

    config: AuditSettings
    environment: Environment
    results: AuditResults
    vectors: Mapping[str, Mapping[str, np.ndarray]] = field(repr=False)
    kernels: Mapping[str, Mapping[str, Mapping[str, Kernel]]] = field(repr=False)

    @property
    def answer(self) -> tuple[str, ...]:
        """The verdict in plain words, and the three things most worth knowing."""
        return self.results.answer

    @property
    def checkpoints(self) -> tuple[AuditedCheckpoint, ...]:
        """What was found of each checkpoint, in the order given."""
        return self.results.checkpoints

    @property
    def record(self) -> AuditRecord:
        """What report.json holds."""
        said = (
            NamedVerdict(each.name, verdict.id, verdict.verdict, verdict.words, verdict.rests_on)
            for each in self.checkpoints
            for verdict in each.verdicts
        )
        return AuditRecord(SCHEMA, self.config, self.environment, self.results, tuple(said))
