"""What an audit found of one checkpoint, as frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass

from ntk_propulsion.auditing.coverage import NOTHING, Coverage, Part
from ntk_propulsion.auditing.judgements import Finding, Verdict
from ntk_propulsion.auditing.tables import (
    AllLayers,
    AuditedLayer,
    AuditedTensor,
    Gains,
    SimilarLayers,
    VectorStatistics,
)
from ntk_propulsion.measurements.tables import (
    KernelDistance,
    KernelDrift,
    KernelSummary,
    ModuleComparison,
)


@dataclass(frozen=True)
class Kind:
    """What kind of tuning it is.

    Attributes:
        id: A key of `ntk_propulsion.auditing.kinds.KINDS`.
        words: The same in words.
    """

    id: str
    words: str


@dataclass(frozen=True)
class Tie:
    """Tensors that are one in the base.

    Attributes:
        tensors: Their names.
        state: In the checkpoint: ``"kept"``, ``"broken"`` or ``"not in the file"``.
    """

    tensors: tuple[str, str]
    state: str


@dataclass(frozen=True)
class DtypeChange:
    """How many tensors went from one type to another.

    Attributes:
        base: The type in the base.
        tuned: The type in the checkpoint.
        tensors: How many.
    """

    base: str
    tuned: str
    tensors: int


@dataclass(frozen=True)
class LargeChange:
    """A tensor that moved much.

    Attributes:
        name: The tensor.
        relative_norm: |W1 - W0| / |W0|.
        largest: Largest absolute entry of W1 - W0.
    """

    name: str
    relative_norm: float | None
    largest: float | None


@dataclass(frozen=True)
class Integrity:
    """Whether a checkpoint is what it says. Lists of names are cut; the counts are not.

    Attributes:
        frozen_base: ``"confirmed"``, ``"refuted"``, ``"incomplete"`` or ``"not in the file"``.
        changed: Tensors outside the head that differ from the base's.
        compared: Tensors outside the head that both hold; `Coverage` has the parameters.
        undeclared: Those that differ and that the checkpoint does not say it trained.
        undeclared_count: How many.
        only_biases: Whether these are biases, all of them.
        declared: Those that differ and that it says it trained.
        head: What became of the head, in words.
        largest: The undeclared ones that moved most; if there are none, the declared ones.
        nonfinite: NaN and infinite entries by tensor or key, where there are any.
        nonfinite_base: The same of the base.
        missing: Tensors of the base that a file with base weights lacks.
        missing_count: How many.
        extra: Tensors that the base lacks.
        unknown: Keys that fit no dialect.
        ties: What the base ties.
        dtypes: Changes of type.
        entries: How many numbers the file holds, by what they are.
        names: What was done to names to pair them, in words.
        rounded: Tensors outside the head that differ from the base's by the precision alone in
            which the file, or the base, stores them.
    """

    frozen_base: str
    changed: int
    compared: int
    undeclared: tuple[str, ...]
    undeclared_count: int
    only_biases: bool
    declared: tuple[str, ...]
    head: str
    largest: tuple[LargeChange, ...]
    nonfinite: dict[str, int]
    nonfinite_base: dict[str, int]
    missing: tuple[str, ...]
    missing_count: int
    extra: tuple[str, ...]
    unknown: tuple[str, ...]
    ties: tuple[Tie, ...]
    dtypes: tuple[DtypeChange, ...]
    entries: dict[str, int]
    names: str
    rounded: int = 0


@dataclass(frozen=True)
class Promise:
    """Something that a configuration says, and what the file has.

    Attributes:
        what: What is counted.
        promised: By the configuration.
        found: In the file.
        holds: Whether they agree; None where it cannot be checked.
        words: All this in words.
    """

    what: str
    promised: int | str | None
    found: int | str | tuple[int, ...] | None
    holds: bool | None
    words: str


@dataclass(frozen=True)
class ScalingVectors:
    """Statistics of the scaling vectors of Propulsion or IA3.

    Attributes:
        degree: The power k; None if nobody says it.
        left_out: Modules whose vector is not finite: nothing below counts them.
        range: What counts as near 1.
        outlier_score: The robust z-score from which an entry is an outlier.
        modules: Module by module.
        roles: All vectors of a role together.
        total: All vectors together; None where none is finite.
        by_degree: The gains of all, if the degree were each of the common ones.
        similarity: Layers of each size against each other.
        entries_left_out: How many entries the modules left out have.
    """

    degree: int | None
    left_out: tuple[str, ...]
    range: tuple[float, float]
    outlier_score: float
    modules: tuple[VectorStatistics, ...] = ()
    roles: tuple[VectorStatistics, ...] = ()
    total: VectorStatistics | None = None
    by_degree: tuple[Gains, ...] = ()
    similarity: tuple[SimilarLayers, ...] = ()
    entries_left_out: int = 0

    @property
    def part(self) -> Part:
        """The vectors that are counted, of all of them."""
        entries = self.total.n if self.total else 0
        count, left_out = len(self.modules), len(self.left_out)
        return Part(count, count + left_out, entries, entries + self.entries_left_out)


@dataclass(frozen=True)
class Updates:
    """How much of the tuning is a Propulsion.

    Attributes:
        layers: Layer by layer, the head too.
        total: All layers but the head; None where no layer could be compared.
        left_out: How many layers have a reason.
        reason: Why layers, or all together, have no share.
        unmergeable: Why the tuning is no change of weights; None if it may be one.
    """

    layers: tuple[AuditedLayer, ...]
    total: AllLayers | None
    left_out: int
    reason: str | None
    unmergeable: str | None


@dataclass(frozen=True)
class MetricChange:
    """The task's metric on the kernels' examples.

    Attributes:
        name: The metric.
        base: At the base; None where it is not defined.
        tuned: At the tuned weights; None where it is not defined.
    """

    name: str
    base: float | None
    tuned: float | None


@dataclass(frozen=True)
class ModuleDrift:
    """How far one module's Jacobians went.

    Attributes:
        module: The module.
        drift: |J_t - J_0| / |J_0| of its own parameters; None where it is not finite.
    """

    module: str
    drift: float | None


@dataclass(frozen=True)
class AuditedRegime:
    """Whether the training stayed in the kernel regime, as `measurements.regime` measures it.

    Attributes:
        of: What trained: ``"the scaling vectors"`` or ``"all weights"``.
        linearization_error: |f - f_lin| / |f - f_0|.
        linearization_floor: Below this the error is rounding.
        linearization_per_example: The same for each example.
        feature_drift: |J - J_0| / |J_0|.
        drift_floor: Below this the drift is rounding.
        drift_without_head: The drift of all modules but the head's.
        drift_per_module: Module by module.
        distances: Of the kernel at the tuned weights from that at the base, by name.
        linearization: Whether the outputs stayed linear in what trains: ``"holds"``, ``"weakly"``,
            ``"not"`` or ``"undecided"``.
        fixed_features: Whether the Jacobians stayed what they were, in the same words.
        kernel_regime: The worse of both.
    """

    of: str
    linearization_error: float | None
    linearization_floor: float | None
    linearization_per_example: tuple[float | None, ...]
    feature_drift: float | None
    drift_floor: float | None
    drift_without_head: float | None
    drift_per_module: tuple[ModuleDrift, ...]
    distances: dict[str, float | None]
    linearization: str
    fixed_features: str
    kernel_regime: str


@dataclass(frozen=True)
class AuditedKernels:
    """Kernels at the base and at the tuned weights, or the reason why there are none.

    Attributes:
        reason: Why nothing was measured; None where it was.
        examples: N.
        outputs: O.
        head_modules: The modules of the head, in the base as a model.
        notes: What was done about the model and its head, a sentence each.
        kernels: Each kernel.
        distances: Of Propulsion's kernel from full fine-tuning's, at both points.
        per_module: The same module by module.
        drift: Of each kernel from the base to the tuned weights.
        metric: What the tuning did to the task's metric.
        regime: The kernel regime; None with a reason.
    """

    reason: str | None = None
    examples: int = 0
    outputs: int = 0
    head_modules: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    kernels: tuple[KernelSummary, ...] = ()
    distances: tuple[KernelDistance, ...] = ()
    per_module: tuple[ModuleComparison, ...] = ()
    drift: tuple[KernelDrift, ...] = ()
    metric: MetricChange | None = None
    regime: AuditedRegime | None = None


@dataclass(frozen=True)
class AuditedCheckpoint:
    """Everything about one checkpoint.

    Attributes:
        name: What it is called in the report.
        path: Where it lies.
        form: What kind of files it is.
        dialect: Of its keys.
        dialect_words: The same in words.
        peft_type: The kind of a PEFT adapter.
        degree: The power k of the gains; None if nobody says it.
        claims_frozen: Whether its dialect is one that leaves the base alone.
        kind: What kind of tuning it is.
        notes: What the user should know, a sentence each.
        integrity: Whether it is what it says.
        promises: What its configuration says, counted.
        tensors: Every tensor of base and checkpoint.
        vectors: Its scaling vectors; None where it has none.
        updates: How much of it is a Propulsion.
        kernels: None without a task.
        findings: What is worth knowing, the gravest first.
        verdicts: The answers to all questions.
        coverage: What share of the base, and of the changed layers, all this rests on.
    """

    name: str
    path: str
    form: str
    dialect: str
    dialect_words: str
    peft_type: str | None
    degree: int | None
    claims_frozen: bool
    kind: Kind
    notes: tuple[str, ...]
    integrity: Integrity
    promises: tuple[Promise, ...]
    tensors: tuple[AuditedTensor, ...]
    vectors: ScalingVectors | None
    updates: Updates
    kernels: AuditedKernels | None
    findings: tuple[Finding, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    coverage: Coverage = NOTHING

    @property
    def regime(self) -> AuditedRegime | None:
        """Its kernel regime, where that was measured."""
        return None if self.kernels is None else self.kernels.regime
