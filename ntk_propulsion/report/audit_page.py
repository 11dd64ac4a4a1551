"""The page of an audit: verdict and findings first, then every table and figure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ntk_propulsion import words
from ntk_propulsion.auditing.checkpoint import AuditedCheckpoint
from ntk_propulsion.auditing.results import AuditRecord, AuditResults
from ntk_propulsion.auditing.shares import measured, unsaid
from ntk_propulsion.report.downloads import Row, columns_of
from ntk_propulsion.report.page import Page, render
from ntk_propulsion.report.pictures import Picture, explorer
from ntk_propulsion.report.sections import (
    MODULE,
    PART,
    ROLE,
    TUNING,
    Z_COLUMNS,
    Section,
    fine,
    shown,
)
from ntk_propulsion.report.settings import settings_sheets
from ntk_propulsion.report.sheets import (
    Column,
    Sheet,
    metric_columns,
    number_column,
    sheet,
    words_column,
)

TITLE = "Audit: what was tuned, and is it what it says?"
POINTS = {"base": "base", "tuned": "tuned"}
Checkpoints = Sequence[AuditedCheckpoint]
GLOSSARY = {
    "frozen base": "Confirmed: every tensor outside the head that base and checkpoint share is the "
    "same to the bit (rounded first where the checkpoint is stored in a lower precision), but for "
    "those that the checkpoint declares as trained. Refuted: one is not. Incomplete: the same ones "
    "are, others are not in the file. Not in the file: an adapter, which carries no base.",
    "rests on": "The share of the base's tensors and parameters that both files hold and that "
    "could be compared; of shares and ranks, the share of the changed layers whose update could be "
    "measured.",
    "unchanged but for precision": "What storing the base's numbers as the file stores its own, or "
    "the base's own storing, explains to the bit.",
    "rounding": "The part of an update that storing it is expected to have made: spacing squared "
    "over 12 for each number.",
    "z and gain": "Propulsion multiplies a layer's output by z**k for each neuron; z starts at 1. "
    "No checkpoint of the public code records the degree k.",
    "range": "The paper finds z in [0.98, 1.02] after training. At degree 15 that allows gains "
    "from 0.74 to 1.35.",
    "dead": "Gains below 0.01 in absolute value: the neuron is all but switched off.",
    "outliers": "Entries of z with a modified z-score (by median and median absolute deviation) "
    "above 3.5, after Iglewicz and Hoaglin.",
    "spread over": "Over how many entries the change of z spreads: a participation ratio, from 1 "
    "to all of them. Gini: 0 where all moved alike, near 1 where few did.",
    "share": "For each neuron the best gain, and the part of the update's squared norm that the "
    "gains explain together. Chance: the same of a random direction per neuron, 1 over its number "
    "of weights.",
    "rank": "Singular values of the update that stand out of rounding. Settled: rounding hides no "
    "further ones. The closest update of a rank is the best that a LoRA of that rank could be.",
    "matching rank": "The rank whose closest update explains as much as the gains do.",
    "linearization error": "|f - f_lin| / |f - f_0|: how far the outputs are from those of the "
    "model linearized at the base, along the straight line from base to tuned.",
    "feature drift": "|J - J_0| / |J_0|: how far the Jacobian of what trains went.",
    "kernel regime": "Holds where both are at most 0.1, weakly where both are at most 0.5.",
}


def audit_page(record: AuditRecord, pictures: Mapping[str, Picture]) -> str:
    """Return the page's HTML; it loads nothing from anywhere, and escapes all data.

    Args:
        record: What report.json holds.
        pictures: By name; each goes to the section that its name begins with.
    """
    results, base = record.results, record.results.base
    audited = words.listed(of.name for of in results.checkpoints)
    pointed = any(each.pairs for each in pictures.values())
    return render(
        Page(
            title=TITLE,
            subtitle=f"{audited}, against {base.name} ({words.count(base.parameters)} numbers)",
            answer=results.answer,
            notes=list(_notes(results.checkpoints)),
            sections=_sections(record, pictures),
            explorer=explorer(results.examples, results.task) if pointed and results.task else None,
        )
    )


def _notes(checkpoints: Checkpoints) -> Iterable[str]:
    for of in checkpoints:
        notes = [_rests_on(of), *of.notes, *(of.kernels.notes if of.kernels else ())]
        if of.kernels and of.kernels.reason:
            notes.append(f"no kernels: {of.kernels.reason}")
        for note in notes:
            yield f"{of.name}: {note}" if len(checkpoints) > 1 else note


def _rests_on(of: AuditedCheckpoint) -> str:
    """Say what the headline rests on."""
    said = f"compared: {of.coverage.words}"
    if of.coverage.layers.of:
        said += f"; measured: {measured(of)}"
    return f"{said}; tables have {of.coverage.rows}" if of.coverage.rows else said


def _sections(record: AuditRecord, pictures: Mapping[str, Picture]) -> list[Section]:
    checkpoints = record.results.checkpoints

    def drawn(*starts: str) -> list[Picture]:
        return [p for name, p in pictures.items() if name.startswith(starts)]

    settings = settings_sheets(record.config, record.environment)
    every = [
        Section("findings", "Findings, the gravest first", _findings(checkpoints), open=True),
        Section("verdicts", "Verdicts", _verdicts(checkpoints), open=True),
        Section("comparison", "The checkpoints side by side", _comparison(record.results)),
        Section("updates", "How much is a Propulsion", _updates(checkpoints), drawn("updates")),
        Section("ranks", "The closest LoRA", _ranks(checkpoints), drawn("ranks")),
        Section("vectors", "Scaling vectors", _vectors(checkpoints), drawn("vectors", "simil")),
        Section("kernels", "Kernels", _kernels(checkpoints), drawn("regime", "kernels")),
        Section("tensors", "Every tensor", _tensors(checkpoints)),
        Section("configuration", "Configuration and environment", settings),
        Section("reading", "How to read each number", terms=GLOSSARY),
    ]
    return shown(every)


def _each(
    checkpoints: Checkpoints, table: Callable[[AuditedCheckpoint], Iterable[Any]]
) -> list[dict[str, Any]]:
    """Return the rows of a table of every checkpoint, named where there are several."""
    several = len(checkpoints) > 1
    return [
        ({"checkpoint": of.name} if several else {}) | dict(columns_of(row))
        for of in checkpoints
        for row in table(of)
    ]


def _table(name: str, title: str, rows: Sequence[Row], columns: Sequence[Column]) -> list[Sheet]:
    if not rows:
        return []
    several = isinstance(rows[0], Mapping) and "checkpoint" in rows[0]
    named = [words_column("checkpoint")] if several else []
    return [sheet(name, title, [*named, *columns], rows)]


def _findings(checkpoints: Checkpoints) -> list[Sheet]:
    columns = [
        words_column("severity"),
        words_column("words", "finding"),
        words_column("when", "said when"),
    ]
    title = "By the rules written down in ntk_propulsion.auditing.findings"
    return _table("findings", title, _each(checkpoints, lambda of: of.findings), columns)


def _verdicts(checkpoints: Checkpoints) -> list[Sheet]:
    columns = [
        words_column("id", "question"),
        words_column("verdict", "answer"),
        words_column("words"),
        words_column("rests_on", "rests on"),
    ]
    promised = [words_column("what"), words_column("holds"), words_column("words")]
    return [
        *_table("verdicts", "Each question", _each(checkpoints, lambda of: of.verdicts), columns),
        *_table(
            "promises",
            "What configurations promise",
            _each(checkpoints, lambda of: of.promises),
            promised,
        ),
    ]


@dataclass(frozen=True)
class SideBySide:
    """The numbers that compare a checkpoint with others."""

    checkpoint: str
    kind: str
    frozen_base: str
    compared: float
    measured: float | None
    nonfinite: int
    degree: int | None
    z_min: float | None
    z_max: float | None
    share_in_range: float | None
    relative_norm: float | None
    share: float | None
    expected_share: float | None
    matching_rank: float | None
    linearization_error: float | None
    feature_drift: float | None
    kernel_regime: str | None


def side_by_side(of: AuditedCheckpoint) -> SideBySide:
    """Return the numbers that compare a checkpoint with others."""
    total, update, regime = of.vectors and of.vectors.total, of.updates.total, of.regime
    return SideBySide(
        checkpoint=of.name,
        kind=of.kind.id,
        frozen_base=of.integrity.frozen_base,
        compared=of.coverage.base.share,
        measured=of.coverage.layers.share if of.coverage.layers.of else None,
        nonfinite=sum(of.integrity.nonfinite.values()),
        degree=of.degree,
        z_min=total.min if total else None,
        z_max=total.max if total else None,
        share_in_range=total.share_in_range if total else None,
        relative_norm=update.relative_norm if update else None,
        share=update.share if update and not unsaid(of) else None,
        expected_share=update.expected_share if update else None,
        matching_rank=update.matching_rank if update else None,
        linearization_error=regime.linearization_error if regime else None,
        feature_drift=regime.feature_drift if regime else None,
        kernel_regime=regime.kernel_regime if regime else None,
    )


def _comparison(results: AuditResults) -> list[Sheet]:
    if len(results.checkpoints) < 2:
        return []
    columns = [
        words_column("checkpoint"),
        words_column("kind"),
        words_column("frozen_base"),
        number_column("compared", "of the base compared", words.percent),
        number_column("measured", "of changed layers measured", words.percent),
        number_column("nonfinite", "NaN or infinite"),
        number_column("degree"),
        number_column("z_min", "z from", fine),
        number_column("z_max", "z to", fine),
        number_column("share_in_range", "z in [0.98, 1.02]", words.percent),
        number_column("relative_norm", "update / base"),
        number_column("share", "share a Propulsion", words.percent),
        number_column("expected_share", "chance", words.percent),
        number_column("matching_rank"),
        number_column("linearization_error"),
        number_column("feature_drift"),
        words_column("kernel_regime"),
    ]
    pairs = [
        words_column("first"),
        words_column("second"),
        MODULE,
        number_column("n", "neurons", words.count),
        number_column("cosine", "cosine of z - 1"),
        number_column("correlation", "correlation of z"),
        number_column("relative_distance"),
    ]
    rows = [side_by_side(of) for of in results.checkpoints]
    return [
        sheet("comparison", "The checkpoints side by side", columns, rows),
        *_table("pairs", "Scaling vectors, two by two", results.comparison, pairs),
    ]


def _updates(checkpoints: Checkpoints) -> list[Sheet]:
    columns = [
        MODULE,
        ROLE,
        number_column("relative_norm", "update / base"),
        number_column("share", show=words.percent),
        number_column("expected_share", "chance", words.percent),
        number_column("drawn_share", "a random direction", words.percent),
        number_column("deviations", "deviations above chance"),
        number_column("gain_min", "best gain from"),
        number_column("gain_max", "to"),
        number_column("rank"),
        words_column("rank_settled", "settled"),
        number_column("rounding_share", "rounding", words.percent),
        number_column("stable_rank"),
        number_column("share_rank_1", "closest rank 1", words.percent),
        number_column("share_rank_8", "rank 8", words.percent),
        number_column("matching_rank"),
        words_column("reason", "not applicable because"),
    ]
    rows = _each(checkpoints, lambda of: of.updates.layers)
    return _table("updates", "Layer by layer, the head too", rows, columns)


def _ranks(checkpoints: Checkpoints) -> list[Sheet]:
    columns = [
        number_column("rank"),
        number_column("share", "share of the update", words.percent),
        number_column("parameters", show=words.count),
    ]
    title = "The closest update of one rank in all layers but the head's"
    rows = _each(checkpoints, lambda of: of.updates.total.lora if of.updates.total else ())
    return _table("ranks", title, rows, columns)


def _vectors(checkpoints: Checkpoints) -> list[Sheet]:
    columns = [
        *Z_COLUMNS,
        number_column("outliers"),
        number_column("effective_moved", "spread over"),
        number_column("gini", "Gini"),
        *(number_column(key) for key in ("gain_mean", "gain_min", "gain_max")),
        number_column("gain_share_in_range", "gains in [0.98, 1.02]", words.percent),
        number_column("dead"),
    ]
    degrees = [
        number_column("degree"),
        *(number_column(key) for key in ("gain_mean", "gain_min", "gain_max")),
        number_column("gain_share_in_range", "gains in [0.98, 1.02]", words.percent),
        number_column("dead"),
    ]
    roles = _each(checkpoints, lambda of: of.vectors.roles if of.vectors else ())
    modules = _each(checkpoints, lambda of: of.vectors.modules if of.vectors else ())
    by_degree = _each(checkpoints, lambda of: of.vectors.by_degree if of.vectors else ())
    return [
        *_table("roles", "z, role by role", roles, columns),
        *_table("vectors", "z, module by module", modules, columns),
        *_table("degrees", "All gains, if the degree were", by_degree, degrees),
    ]


def _kernels(checkpoints: Checkpoints) -> list[Sheet]:
    point = words_column("point", "taken at", POINTS)
    distances = _each(checkpoints, lambda of: of.kernels.distances if of.kernels else ())
    drift = _each(checkpoints, lambda of: of.kernels.drift if of.kernels else ())
    kernels = _each(checkpoints, lambda of: of.kernels.kernels if of.kernels else ())
    each = [
        point,
        TUNING,
        PART,
        number_column("trace"),
        number_column("effective_rank", "effective rank (participation)"),
        number_column("target_alignment", "alignment with the labels"),
    ]
    return [
        *_table(
            "distances",
            "Propulsion's kernel from full fine-tuning's: value [interval over examples]",
            distances,
            [point, TUNING, PART, *metric_columns(distances)],
        ),
        *_table(
            "drift",
            "Drift: each kernel at the base against itself at the tuned weights",
            drift,
            [TUNING, PART, *metric_columns(drift)],
        ),
        *_table("each", "Each kernel", kernels, each),
    ]


def _tensors(checkpoints: Checkpoints) -> list[Sheet]:
    columns = [
        words_column("name"),
        ROLE,
        words_column("state"),
        number_column("relative_norm", "change / size"),
        number_column("largest", "largest entry of the change"),
        number_column("nonfinite", "NaN or infinite"),
        words_column("dtype", "type in the base"),
        words_column("tuned_dtype", "type in the file"),
        Column("shape", lambda row: "x".join(map(str, row["shape"]))),
    ]
    title = "Every tensor of base and checkpoint"
    return _table("tensors", title, _each(checkpoints, lambda of: of.tensors), columns)
