"""The page's foldable sections: which tables, which columns, which figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ntk_propulsion import words
from ntk_propulsion.figures.before.courses import KERNELS
from ntk_propulsion.report.pictures import Picture
from ntk_propulsion.report.sheets import (
    Column,
    Sheet,
    metric_columns,
    number_column,
    sheet,
    words_column,
)
from ntk_propulsion.theory.distances import DISTANCES


@dataclass(frozen=True)
class Section:
    """One foldable part of the page."""

    name: str
    title: str
    tables: list[Sheet] = field(default_factory=list)
    figures: list[Picture] = field(default_factory=list)
    terms: dict[str, str] = field(default_factory=dict)
    open: bool = False


STUDIES = Path(__file__).with_name("studies.json")


def fine(value: Any) -> str:
    """Write a z: its fourth digit matters."""
    return words.number(value, 4)


TAKEN = words_column("point", "taken", words.POINTS)
TUNING = words_column("tuning", "kernel", words.TUNINGS)
PART = words_column("part", names=words.PARTS)
ROLE = Column("role", lambda row: str(row["role"]).replace("_", " "))
MODULE = words_column("module")
Z_COLUMNS = (
    MODULE,
    ROLE,
    number_column("n", "neurons", words.count),
    *(number_column(key, show=fine) for key in ("mean", "std", "min", "max")),
    number_column("share_in_range", "in [0.98, 1.02]", words.percent),
    number_column("sign_changes"),
)


def sections(report: dict[str, Any], pictures: Mapping[str, Picture]) -> list[Section]:
    """Return the sections that have something to show, in the page's order.

    Args:
        report: The experiment's report.
        pictures: ``{name: figure}``; each goes to the section that its name begins with.
    """
    results = report["results"]

    def drawn(start: str) -> list[Picture]:
        return [p for name, p in pictures.items() if name.startswith(start)]

    settings = [_settings(report, name) for name in ("config", "environment")]
    every = [
        Section("distances", "Distances", _distances(results), drawn("distances"), open=True),
        Section("heat-maps", "More heat maps", [], drawn("kernels")),
        Section("modules", "Module by module", _modules(results), drawn("modules")),
        Section("spectra", "Spectra", _kernels(results), drawn("spectra")),
        Section("scaling", "Scaling vectors", _scaling_vectors(results), drawn("scaling")),
        Section("training", "Training", _training(results), drawn("training") + drawn("sweep")),
        Section("trajectories", "Along training", _courses(results), drawn("trajectories")),
        Section("claims", "The paper's claims that one run can measure", _claims(report)),
        Section("studies", "The paper's claims, as the studies found them", _studies()),
        Section("examples", "Examples", _examples(results)),
        Section("configuration", "Configuration and environment", settings),
        Section("reading", "How to read each number", terms=words.GLOSSARY),
    ]
    return [s for s in every if s.tables or s.figures or s.terms]


def _tables(name: str, title: str, columns: list[Column], rows: Any) -> list[Sheet]:
    return [sheet(name, title, columns, rows)] if rows else []


def _distances(results: dict[str, Any]) -> list[Sheet]:
    distances, drift = results["distances"], results.get("drift") or []
    method = words_column("method", "trained by", words.TUNINGS)
    return [
        *_tables(
            "distances",
            "From full fine-tuning's kernel: value [interval over examples]",
            [TAKEN, TUNING, PART, *metric_columns(distances)],
            distances,
        ),
        *_tables(
            "drift",
            "Drift: a kernel before training against itself after",
            [method, TUNING, PART, *metric_columns(drift)],
            drift,
        ),
    ]


def _modules(results: dict[str, Any]) -> list[Sheet]:
    columns = [
        MODULE,
        ROLE,
        TAKEN,
        number_column("alignment", show=words.near_one),
        number_column("cka", "CKA", words.near_one),
        number_column("best_scale_error", "best-scale error"),
        number_column("trace_share_full", "share of tr K_F", words.percent),
        number_column("trace_share_propulsion", "share of tr K_P", words.percent),
    ]
    title = "Each module's kernel, Propulsion's against full fine-tuning's"
    return _tables("per_module", title, columns, results.get("per_module"))


def _kernels(results: dict[str, Any]) -> list[Sheet]:
    columns = [
        TAKEN,
        TUNING,
        PART,
        number_column("parameters", show=words.count),
        number_column("trace"),
        number_column("effective_rank", "effective rank (participation)"),
        number_column("effective_rank_entropy", "effective rank (entropy)"),
        number_column("condition_number"),
        number_column("largest_eigenvalue"),
        number_column("target_alignment"),
    ]
    return _tables("kernels", "Each kernel", columns, results["kernels"])


def _scaling_vectors(results: dict[str, Any]) -> list[Sheet]:
    columns = [
        *Z_COLUMNS,
        number_column("near_zero_gains", "gains near 0"),
        *(number_column(key) for key in ("gain_mean", "gain_min", "gain_max")),
        Column("moved most: neuron (z)", _moved),
    ]
    title = "z after training, module by module"
    return _tables("scaling_vectors", title, columns, results.get("scaling_vectors"))


def _training(results: dict[str, Any]) -> list[Sheet]:
    columns = [
        words_column("method", names=words.TUNINGS),
        number_column("steps"),
        number_column("learning_rate"),
        number_column("degree"),
        number_column("trainable_parameters", show=words.count),
        number_column("metric_before"),
        number_column("metric_after"),
        number_column("seconds"),
    ]
    title = f"Metric: {results['task'].get('metric')}"
    trials = [
        {"method": sweep["method"], "given": sweep["given"], "chosen": sweep["chosen"], **trial}
        for sweep in results.get("sweeps") or ()
        for trial in sweep["trials"] or ({"learning_rate": sweep["chosen"]},)
    ]
    tried = [
        words_column("method", names=words.TUNINGS),
        number_column("learning_rate", "learning rate tried"),
        number_column("loss", "validation loss"),
        number_column("metric", "validation metric"),
        Column("taken", _taken),
    ]
    return [
        *_tables("training", title, columns, results.get("training")),
        *_tables("sweeps", "Learning rates: what was tried", tried, trials),
    ]


def _taken(trial: words.Row) -> str:
    if trial["given"]:
        return "given"
    if "loss" not in trial:
        return "not swept"
    if trial["loss"] is None:
        return "diverged"
    return "chosen" if trial["learning_rate"] == trial["chosen"] else ""


def _courses(results: dict[str, Any]) -> list[Sheet]:
    method = words_column("method", names=words.TUNINGS)
    regimes = [
        method,
        number_column("learning_rate"),
        number_column("step", "last step"),
        number_column("linearization_error"),
        number_column("linearization_least", "least of an example"),
        number_column("linearization_most", "most of an example"),
        number_column("feature_drift"),
        number_column("drift_least", "least of an example"),
        number_column("drift_most", "most of an example"),
        *(words_column(key) for key in ("linearization", "fixed_features", "kernel_regime")),
    ]
    courses = [
        method,
        words_column("kernel", names={"own": "what trains", "full": "K_F there"}),
        words_column("quantity"),
        number_column("step"),
        number_column("value"),
    ]
    between = [
        method,
        words_column("kernel", names=KERNELS),
        words_column("quantity", names={d.name: d.label for d in DISTANCES.values()}),
        number_column("step"),
        number_column("value"),
    ]
    stopped = [row for row in results.get("trajectories") or () if row["diverged"]]
    return [
        *_tables(
            "regimes",
            "In the kernel regime? Rule: regime.kernel_regime",
            regimes,
            results.get("regimes"),
        ),
        *_tables(
            "diverged", "Trainings that diverged", [method, words_column("diverged")], stopped
        ),
        *_tables(
            "between", "From full fine-tuning at equal steps", between, results.get("between")
        ),
        *_tables(
            "courses", "Every quantity at every recorded step", courses, results.get("courses")
        ),
    ]


def _claims(report: dict[str, Any]) -> list[Sheet]:
    keys = ("id", "statement", "verdict", "measured", "expected", "source")
    title = "Verdicts by the limits written down in ntk_propulsion.report.claims"
    return _tables("claims", title, [words_column(key) for key in keys], report.get("claims"))


@cache
def _studies() -> list[Sheet]:
    """Return the claims table that the studies of this version published, if they did."""
    if not STUDIES.is_file():
        return []
    keys = ("id", "statement", "verdict", "measured", "about", "study", "rule")
    title = "Verdicts by rules written beforehand; on other models and data than this report's"
    rows = json.loads(STUDIES.read_text())
    return _tables("studies", title, [words_column(key) for key in keys], rows)


def _examples(results: dict[str, Any]) -> list[Sheet]:
    examples = results["examples"]
    columns = [
        number_column("row"),
        number_column("index", "index in the task"),
        Column("label", lambda e: e["label"], lambda label: words.label_name(results, label)),
        number_column("tokens"),
        words_column("text"),
    ]
    if any(e.get("pair") for e in examples):
        columns.append(words_column("pair", "second text"))
    return _tables("examples", "Row: the order in the kernels", columns, examples)


def _settings(report: dict[str, Any], name: str) -> Sheet:
    rows = [{"name": k, "value": _setting(k, v)} for k, v in (report.get(name) or {}).items()]
    return sheet(name, name, [words_column("name"), words_column("value")], rows)


def _setting(key: str, value: Any) -> Any:
    """Write a setting or a fact of the environment for people."""
    if key.endswith("_bytes") and words.finite(value) is not None:
        return f"{value / 2**30:.2f} GiB"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {number}" for name, number in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return value


def _moved(row: words.Row) -> str:
    return ", ".join(f"{neuron} ({fine(z)})" for neuron, z in row.get("most_moved") or ())
