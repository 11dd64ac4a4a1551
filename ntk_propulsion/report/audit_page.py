"""The page of an audit: verdict and findings first, then every table and figure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ntk_propulsion import words
from ntk_propulsion.report.page import fill
from ntk_propulsion.report.pictures import Picture
from ntk_propulsion.report.sections import MODULE, PART, ROLE, TUNING, Z_COLUMNS, Section, fine
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
GLOSSARY = {
    "frozen base": "Confirmed: every tensor outside the head that base and checkpoint share is the "
    "same to the bit (rounded first where the checkpoint is stored in a lower precision), but for "
    "those that the checkpoint declares as trained. Refuted: one is not. Incomplete: the same ones "
    "are, others are not in the file. Not in the file: an adapter, which carries no base.",
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
    "rank": "Singular values of the update that stand out of rounding. The closest update of a "
    "rank is the best that a LoRA of that rank could be.",
    "matching rank": "The rank whose closest update explains as much as the gains do.",
    "linearization error": "|f - f_lin| / |f - f_0|: how far the outputs are from those of the "
    "model linearized at the base, along the straight line from base to tuned.",
    "feature drift": "|J - J_0| / |J_0|: how far the Jacobian of what trains went.",
    "kernel regime": "Holds where both are at most 0.1, weakly where both are at most 0.5.",
}


def audit_page(report: dict[str, Any], pictures: Mapping[str, Picture]) -> str:
    """Return the page's HTML; it loads nothing from anywhere, and escapes all data.

    Args:
        report: The audit's report, as report.json holds it.
        pictures: By name; each goes to the section that its name begins with.
    """
    results = report["results"]
    base = results["base"]
    audited = words.listed(each["name"] for each in results["checkpoints"])
    return fill(
        results,
        pictures,
        title=TITLE,
        subtitle=f"{audited}, against {base['name']} ({words.count(base['parameters'])} numbers)",
        answer=results["answer"],
        notes=list(_notes(results)),
        key=[],
        sections=_sections(report, pictures),
    )


def _notes(results: Mapping[str, Any]) -> Iterable[str]:
    several = len(results["checkpoints"]) > 1
    for each in results["checkpoints"]:
        notes = [*each["notes"], *((each["kernels"] or {}).get("notes") or ())]
        reason = (each["kernels"] or {}).get("reason")
        if reason:
            notes.append(f"no kernels: {reason}")
        for note in notes:
            yield f"{each['name']}: {note}" if several else note


def _sections(report: dict[str, Any], pictures: Mapping[str, Picture]) -> list[Section]:
    checkpoints = report["results"]["checkpoints"]

    def drawn(*starts: str) -> list[Picture]:
        return [p for name, p in pictures.items() if name.startswith(starts)]

    settings = [_settings(report, name) for name in ("config", "environment")]
    every = [
        Section("findings", "Findings, the gravest first", _findings(checkpoints), open=True),
        Section("verdicts", "Verdicts", _verdicts(report), open=True),
        Section("comparison", "The checkpoints side by side", _comparison(report["results"])),
        Section("updates", "How much is a Propulsion", _updates(checkpoints), drawn("updates")),
        Section("ranks", "The closest LoRA", _ranks(checkpoints), drawn("ranks")),
        Section("vectors", "Scaling vectors", _vectors(checkpoints), drawn("vectors", "simil")),
        Section("kernels", "Kernels", _kernels(checkpoints), drawn("regime", "kernels")),
        Section("tensors", "Every tensor", _tensors(checkpoints)),
        Section("configuration", "Configuration and environment", settings),
        Section("reading", "How to read each number", terms=GLOSSARY),
    ]
    return [s for s in every if s.tables or s.figures or s.terms]


def _each(checkpoints: list[dict[str, Any]], *path: str) -> list[dict[str, Any]]:
    """Return the rows of a table of every checkpoint, named where there are several."""
    found = []
    for each in checkpoints:
        table: Any = each
        for key in path:
            table = (table or {}).get(key)
        for row in table or ():
            found.append({"checkpoint": each["name"], **row} if len(checkpoints) > 1 else row)
    return found


def _table(name: str, title: str, rows: list[Any], columns: list[Column]) -> list[Sheet]:
    if not rows:
        return []
    named = [words_column("checkpoint")] if "checkpoint" in rows[0] else []
    return [sheet(name, title, [*named, *columns], rows)]


def _findings(checkpoints: list[dict[str, Any]]) -> list[Sheet]:
    columns = [
        words_column("severity"),
        words_column("words", "finding"),
        words_column("when", "said when"),
    ]
    title = "By the rules written down in ntk_propulsion.auditing.findings"
    return _table("findings", title, _each(checkpoints, "findings"), columns)


def _verdicts(report: dict[str, Any]) -> list[Sheet]:
    columns = [
        words_column("id", "question"),
        words_column("verdict", "answer"),
        words_column("words"),
    ]
    rows = report["verdicts"]
    if len(report["results"]["checkpoints"]) == 1:
        rows = [{k: v for k, v in row.items() if k != "checkpoint"} for row in rows]
    promised = [words_column("what"), words_column("holds"), words_column("words")]
    checked = _each(report["results"]["checkpoints"], "promises")
    return [
        *_table("verdicts", "Each question", rows, columns),
        *_table("promises", "What configurations promise", checked, promised),
    ]


def comparison_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row per checkpoint with the numbers that compare them."""
    rows = []
    for each in results["checkpoints"]:
        total = (each["vectors"] or {}).get("total") or {}
        update = each["updates"]["total"] or {}
        regime = (each["kernels"] or {}).get("regime") or {}
        rows.append(
            {
                "checkpoint": each["name"],
                "kind": each["kind"]["id"],
                "frozen_base": each["integrity"]["frozen_base"],
                "nonfinite": sum(each["integrity"]["nonfinite"].values()),
                "degree": each["degree"],
                "z_min": total.get("min"),
                "z_max": total.get("max"),
                "share_in_range": total.get("share_in_range"),
                "relative_norm": update.get("relative_norm"),
                "share": update.get("share"),
                "expected_share": update.get("expected_share"),
                "matching_rank": update.get("matching_rank"),
                "linearization_error": regime.get("linearization_error"),
                "feature_drift": regime.get("feature_drift"),
                "kernel_regime": regime.get("kernel_regime"),
            }
        )
    return rows


def _comparison(results: Mapping[str, Any]) -> list[Sheet]:
    if len(results["checkpoints"]) < 2:
        return []
    columns = [
        words_column("checkpoint"),
        words_column("kind"),
        words_column("frozen_base"),
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
    return [
        sheet("comparison", "The checkpoints side by side", columns, comparison_rows(results)),
        *_table("pairs", "Scaling vectors, two by two", results["comparison"], pairs),
    ]


def _updates(checkpoints: list[dict[str, Any]]) -> list[Sheet]:
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
        number_column("stable_rank"),
        number_column("share_rank_1", "closest rank 1", words.percent),
        number_column("share_rank_8", "rank 8", words.percent),
        number_column("matching_rank"),
        words_column("reason", "not applicable because"),
    ]
    rows = _each(checkpoints, "updates", "layers")
    return _table("updates", "Layer by layer, the head too", rows, columns)


def _ranks(checkpoints: list[dict[str, Any]]) -> list[Sheet]:
    columns = [
        number_column("rank"),
        number_column("share", "share of the update", words.percent),
        number_column("parameters", show=words.count),
    ]
    title = "The closest update of one rank in all layers but the head's"
    return _table("ranks", title, _each(checkpoints, "updates", "total", "lora"), columns)


def _vectors(checkpoints: list[dict[str, Any]]) -> list[Sheet]:
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
    by_degree = _each(checkpoints, "vectors", "by_degree")
    return [
        *_table("roles", "z, role by role", _each(checkpoints, "vectors", "roles"), columns),
        *_table(
            "vectors", "z, module by module", _each(checkpoints, "vectors", "modules"), columns
        ),
        *_table("degrees", "All gains, if the degree were", by_degree, degrees),
    ]


def _kernels(checkpoints: list[dict[str, Any]]) -> list[Sheet]:
    point = words_column("point", "taken at", POINTS)
    distances, drift = (_each(checkpoints, "kernels", key) for key in ("distances", "drift"))
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
        *_table("each", "Each kernel", _each(checkpoints, "kernels", "kernels"), each),
    ]


def _tensors(checkpoints: list[dict[str, Any]]) -> list[Sheet]:
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
    return _table("tensors", title, _each(checkpoints, "tensors"), columns)


def _settings(report: Mapping[str, Any], name: str) -> Sheet:
    rows = [{"name": key, "value": _setting(v)} for key, v in report[name].items()]
    return sheet(name, name, [words_column("name"), words_column("value")], rows)


def _setting(value: Any) -> Any:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {number}" for name, number in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
