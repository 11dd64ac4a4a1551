"""Audited checkpoints as they could have been found, for what only reads them."""

from dataclasses import replace

from ntk_propulsion.auditing.checkpoint import (
    AuditedCheckpoint,
    AuditedKernels,
    AuditedRegime,
    Integrity,
    Kind,
    LargeChange,
    MetricChange,
    ModuleDrift,
    Promise,
    ScalingVectors,
    Tie,
    Updates,
)
from ntk_propulsion.auditing.coverage import Coverage, Part
from ntk_propulsion.auditing.findings import findings
from ntk_propulsion.auditing.results import (
    Audit,
    AuditedBase,
    AuditResults,
)
from ntk_propulsion.auditing.settings import AuditSettings
from ntk_propulsion.auditing.tables import (
    AllLayers,
    AuditedLayer,
    AuditedTensor,
    ClosestLoRA,
    Gains,
    SimilarLayers,
    VectorStatistics,
)
from ntk_propulsion.auditing.verdicts import answer, verdicts
from ntk_propulsion.measurements.tables import (
    KernelDistance,
    KernelDrift,
    KernelSummary,
    ModuleComparison,
)
from ntk_propulsion.propulsion import Moved
from ntk_propulsion.runs.environment import environment
from ntk_propulsion.tasks import ExampleFacts, TaskFacts
from ntk_propulsion.theory.estimate import Estimate

QUERY, DENSE = "layer.0.attention.self.query", "layer.0.output.dense"


def integrity(**changes) -> Integrity:
    """A frozen base, finite throughout."""
    found = Integrity(
        frozen_base="confirmed",
        changed=0,
        compared=38,
        undeclared=(),
        undeclared_count=0,
        only_biases=False,
        declared=(),
        head="unchanged",
        largest=(),
        nonfinite={},
        nonfinite_base={},
        missing=(),
        missing_count=0,
        extra=(),
        unknown=(),
        ties=(Tie(("embed.weight", "lm_head.weight"), "kept"),),
        dtypes=(),
        entries={"base weight": 1000, "scaling vector": 24},
        names="names agree as they are",
    )
    return replace(found, **changes)


def thawed() -> Integrity:
    """A base of which one tensor was overwritten."""
    return integrity(
        frozen_base="refuted",
        changed=1,
        undeclared=(f"{DENSE}.weight",),
        undeclared_count=1,
        largest=(LargeChange(f"{DENSE}.weight", 0.25, 0.5),),
    )


def lacking() -> Integrity:
    """A file that lacks three tensors of the base."""
    return integrity(frozen_base="incomplete", missing=("a", "b", "c"), missing_count=3)


def statistics(module: str, role: str, **changes) -> VectorStatistics:
    """The vector of a module, at degree 5."""
    found = VectorStatistics(
        module=module,
        role=role,
        n=16,
        mean=1.001,
        std=0.004,
        min=0.9875,
        max=1.0123,
        share_in_range=1.0,
        sign_changes=0,
        outliers=0,
        furthest=(),
        effective_moved=9.5,
        gini=0.3,
        most_moved=(Moved(module, 3, 0.9875),),
        degree=5,
        gain_mean=1.005,
        gain_min=0.939,
        gain_max=1.063,
        gain_share_in_range=0.75,
        dead=0,
    )
    return replace(found, **changes)


def vectors(**changes) -> ScalingVectors:
    """Two modules that moved alike, at degree 5."""
    found = ScalingVectors(
        degree=5,
        left_out=(),
        range=(0.98, 1.02),
        outlier_score=3.5,
        modules=(statistics(QUERY, "query"), statistics(DENSE, "mlp", min=0.981)),
        roles=(statistics("query", "query"), statistics("mlp", "mlp", min=0.981)),
        total=statistics("total", "total", n=32),
        by_degree=(Gains(1, 1.0, 0.98, 1.01, 1.0, 0), Gains(55, 1.1, 0.5, 1.96, 0.25, 0)),
        similarity=(SimilarLayers(16, (QUERY, DENSE), ((1.0, 0.5), (0.5, 1.0)), 0.5, 0.25, ()),),
    )
    return replace(found, **changes)


def layer(module: str = DENSE, role: str = "mlp", **changes) -> AuditedLayer:
    """A layer of which a Propulsion explains two thirds."""
    found = AuditedLayer(
        module,
        role,
        "linear",
        d_out=16,
        d_in=32,
        relative_norm=0.02,
        share=0.667,
        expected_share=0.03,
        drawn_share=0.025,
        times_chance=22.2,
        deviations=40.0,
        gain_min=0.95,
        gain_max=1.04,
        matching_rank=2.5,
        rank=16,
        full_rank=16,
        rank_settled=False,
        stable_rank=6.2,
        participation_ratio=8.1,
        spectrum=(1.0, 0.5, 0.25),
        share_rank_1=0.3,
        parameters=528,
        rounding_share=1e-9,
        stands_out=True,
    )
    return replace(found, **changes)


def together(**changes) -> AllLayers:
    """The same, as all layers."""
    found = AllLayers(
        layers=2,
        left_out=0,
        parameters=32,
        relative_norm=0.02,
        share=0.667,
        expected_share=0.03,
        drawn_share=0.025,
        times_chance=22.2,
        deviations=40.0,
        share_of_weights=0.66,
        share_of_all=0.6,
        update_outside_layers=0.001,
        matching_rank=2.5,
        lora=(ClosestLoRA(1, 0.3, 96), ClosestLoRA(2, 0.55, 192)),
        rounding_share=1e-9,
        share_beyond_rounding=0.6,
    )
    return replace(found, **changes)


def updates(**changes) -> Updates:
    """Two layers that changed."""
    layers = (layer(QUERY, "query"), layer())
    return replace(Updates(layers, together(), 0, None, None), **changes)


def regime(**changes) -> AuditedRegime:
    """A training that stayed in the kernel regime."""
    found = AuditedRegime(
        of="the scaling vectors",
        linearization_error=0.031,
        linearization_floor=1e-6,
        linearization_per_example=(0.03, 0.04),
        feature_drift=0.062,
        drift_floor=2e-3,
        drift_without_head=0.05,
        drift_per_module=(ModuleDrift(QUERY, 0.04), ModuleDrift(DENSE, 0.08)),
        distances={"cka": 0.998},
        linearization="holds",
        fixed_features="holds",
        kernel_regime="holds",
    )
    return replace(found, **changes)


def kernels(**changes) -> AuditedKernels:
    """Kernels of two examples at both points."""
    points = ("base", "tuned")
    cka = {"cka": Estimate(0.912, 0.87, 0.95), "best_scale": Estimate(2.0)}
    found = AuditedKernels(
        examples=4,
        outputs=2,
        head_modules=("classifier",),
        notes=("the base has no head: the checkpoint's stands at both ends",),
        kernels=tuple(
            KernelSummary(point, tuning, "all", 32, 12.5, 1.5, 1.7, 40.0, 10.0, 0.21)
            for point in points
            for tuning in ("full", "propulsion")
        ),
        distances=tuple(
            KernelDistance(point, "propulsion", "full", "all", cka) for point in points
        ),
        per_module=tuple(
            ModuleComparison("base", module, role, 0.9, 0.8, 0.4, 0.5, 0.5)
            for module, role in ((QUERY, "query"), (DENSE, "mlp"))
        ),
        drift=(KernelDrift("tuned", "propulsion", "all", {"cka": Estimate(0.998)}),),
        metric=MetricChange("accuracy", 0.5, 0.75),
        regime=regime(),
    )
    return replace(found, **changes)


def bare() -> Coverage:
    """That of an adapter's file, which holds nothing of the base."""
    return coverage(encoder=Part(0, 38, 0, 1000))


def coverage(**changes) -> Coverage:
    """All of the base, and both layers."""
    found = Coverage(Part(38, 38, 1000, 1000), layers=Part(2, 2, 1056, 1056))
    return replace(found, **changes)


def checkpoint(name: str = "c", **changes) -> AuditedCheckpoint:
    """A Propulsion of degree 5 without fault; its findings and verdicts are what the rules say."""
    found = AuditedCheckpoint(
        name=name,
        path=f"/models/{name}",
        form="folder",
        dialect="public",
        dialect_words="as propulsion.py saves it",
        peft_type=None,
        degree=5,
        claims_frozen=True,
        kind=Kind("propulsion", "a Propulsion of degree 5"),
        notes=("vectors are read as they are",),
        integrity=integrity(),
        promises=(Promise("rank", 2, 2, True, "it says rank 2, the factors have 2"),),
        tensors=(
            AuditedTensor(
                f"{DENSE}.weight", "mlp", (16, 32), "float32", "float32", "unchanged", False
            ),
            AuditedTensor("classifier.weight", "head", (2, 16), None, "float32", "not in the base"),
        ),
        vectors=vectors(),
        updates=updates(),
        kernels=kernels(),
        coverage=coverage(),
    )
    found = replace(found, **changes)
    return replace(found, findings=findings(found), verdicts=verdicts(found))


def audit(*checkpoints: AuditedCheckpoint, **changes) -> Audit:
    """An audit of checkpoints, without arrays."""
    found = checkpoints or (checkpoint(),)
    results = AuditResults(
        answer=answer(found),
        base=AuditedBase("minilm", "/models/minilm", "folder", 103, 22_700_000, ()),
        task=TaskFacts("sst2", "classification", "accuracy", ("negative", "positive"), "a file"),
        examples=tuple(ExampleFacts(i, 10 + i, f"text {i}", None, i % 2, 3) for i in range(4)),
        checkpoints=found,
        comparison=(),
    )
    settings = AuditSettings("minilm", tuple(each.path for each in found), degree=5, task="sst2")
    made = Audit(settings, environment({"weights": 1.5}), results, {}, {})
    return replace(made, **changes)
