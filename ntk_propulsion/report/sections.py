"""The page's foldable sections: which tables, which columns, which figures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ntk_propulsion import words
from ntk_propulsion.experiment.results import Results, SweepResult
from ntk_propulsion.measurements.tables import ScalingSummary
from ntk_propulsion.report.claims import Claim
from ntk_propulsion.report.document import Report
from ntk_propulsion.report.downloads import Row
from ntk_propulsion.report.pictures import Picture
from ntk_propulsion.report.settings import settings_sheets
from ntk_propulsion.report.sheets import (
    Column,
    Sheet,
    metric_columns,
    number_column,
    sheet,
    tuning_column,
    words_column,
)
from ntk_propulsion.tasks import TaskFacts
from ntk_propulsion.trajectories.figures import KERNELS


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


def fine(value: float | None) -> str:
    """Write a z: its fourth digit matters."""
    return words.number(value, 4)


TAKEN = words_column("point", "taken", words.POINTS)
TUNING = tuning_column("tuning", "kernel")
PART = words_column("part", names=words.PARTS)
METHOD = tuning_column("method")
MODULE = words_column("module")
ROLE = Column("role", words_column("role").value, lambda role: str(role).replace("_", " "))
Z_COLUMNS = (
    MODULE,
    ROLE,
    number_column("n", "neurons", words.count),
    *(number_column(key, show=fine) for key in ("mean", "std", "min", "max")),
    number_column("share_in_range", "in [0.98, 1.02]", words.percent),
    number_column("sign_changes"),
)


def sections(report: Report, pictures: Mapping[str, Picture]) -> list[Section]:
    """Return the sections that have something to show, in the page's order.

    Args:
        report: The experiment's report.
        pictures: ``{name: figure}``; each goes to the section that its name begins with.
    """
    results = report.results

    def drawn(start: str) -> list[Picture]:
        return [p for name, p in pictures.items() if name.startswith(start)]

    settings = settings_sheets(report.config, report.environment)
    every = [
        Section("distances", "Distances", _distances(results), drawn("distances"), open=True),
        Section("heat-maps", "More heat maps", [], drawn("kernels")),
        Section("modules", "Module by module", _modules(results), drawn("modules")),
        Section("spectra", "Spectra", _kernels(results), drawn("spectra")),
        Section("scaling", "Scaling vectors", _scaling_vectors(results), drawn("scaling")),
        Section("training", "Training", _training(results), drawn("training") + drawn("sweep")),
        Section("trajectories", "Along training", _courses(results), drawn("trajectories")),
        Section("claims", "The paper's claims that one run can measure", _claims(report.claims)),
        Section("studies", "The paper's claims, as the studies found them", _studies()),
        Section("examples", "Examples", _examples(results)),
        Section("configuration", "Configuration and environment", settings),
        Section("reading", "How to read each number", terms=words.GLOSSARY),
    ]
    return shown(every)


def shown(every: Iterable[Section]) -> list[Section]:
    """Return the sections that have something to show."""
    return [s for s in every if s.tables or s.figures or s.terms]


def _tables(name: str, title: str, columns: Sequence[Column], rows: Sequence[Row]) -> list[Sheet]:
    return [sheet(name, title, columns, rows)] if rows else []


def _distances(results: Results) -> list[Sheet]:
    method = tuning_column("method", "trained by")
    return [
        *_tables(
            "distances",
            "From full fine-tuning's kernel: value [interval over examples]",
            [TAKEN, TUNING, PART, *metric_columns(results.distances)],
            results.distances,
        ),
        *_tables(
            "drift",
            "Drift: a kernel before training against itself after",
            [method, TUNING, PART, *metric_columns(results.drift)],
            results.drift,
        ),
    ]


def _modules(results: Results) -> list[Sheet]:
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
    return _tables("per_module", title, columns, results.per_module)


def _kernels(results: Results) -> list[Sheet]:
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
    return _tables("kernels", "Each kernel", columns, results.kernels)


def _scaling_vectors(results: Results) -> list[Sheet]:
    columns = [
        *Z_COLUMNS,
        number_column("near_zero_gains", "gains near 0"),
        *(number_column(key) for key in ("gain_mean", "gain_min", "gain_max")),
        Column("moved most: neuron (z)", _moved),
    ]
    title = "z after training, module by module"
    return _tables("scaling_vectors", title, columns, results.scaling_vectors)


def _moved(summary: ScalingSummary) -> str:
    return ", ".join(f"{neuron} ({fine(z)})" for neuron, z in summary.most_moved)


def _training(results: Results) -> list[Sheet]:
    columns = [
        METHOD,
        number_column("steps"),
        number_column("learning_rate"),
        number_column("degree"),
        number_column("trainable_parameters", show=words.count),
        number_column("metric_before"),
        number_column("metric_after"),
        number_column("seconds"),
    ]
    tried = [
        METHOD,
        number_column("learning_rate", "learning rate tried"),
        number_column("loss", "validation loss"),
        number_column("metric", "validation metric"),
        words_column("taken"),
    ]
    trials = [trial for sweep in results.sweeps for trial in _trials(sweep)]
    title = f"Metric: {results.task.metric}"
    return [
        *_tables("training", title, columns, results.training),
        *_tables("sweeps", "Learning rates: what was tried", tried, trials),
    ]


@dataclass(frozen=True)
class _Tried:
    """A learning rate that a method tried, or had without trying."""

    method: str
    learning_rate: float
    loss: float | None
    metric: float | None
    taken: str


def _trials(sweep: SweepResult) -> list[_Tried]:
    if not sweep.trials:
        said = "given" if sweep.given else "not swept"
        return [_Tried(sweep.method, sweep.chosen, None, None, said)]
    return [
        _Tried(
            sweep.method,
            trial.learning_rate,
            trial.loss,
            trial.metric,
            "diverged"
            if trial.loss is None
            else "chosen"
            if trial.learning_rate == sweep.chosen
            else "",
        )
        for trial in sweep.trials
    ]


def _courses(results: Results) -> list[Sheet]:
    measures = [
        number_column("linearization_error"),
        number_column("linearization_least", "least of an example"),
        number_column("linearization_most", "most of an example"),
        number_column("feature_drift"),
        number_column("drift_least", "least of an example"),
        number_column("drift_most", "most of an example"),
    ]
    verdicts = [words_column(key) for key in ("linearization", "fixed_features", "kernel_regime")]
    along = [number_column("step"), number_column("value")]
    of = {"own": "what trains", "full": "K_F there"}
    courses = [METHOD, words_column("kernel", names=of), words_column("quantity"), *along]
    distance = Column("quantity", words_column("quantity").value, words.metric_label)
    return [
        *_tables(
            "regimes",
            "In the kernel regime? Rule: regime.kernel_regime",
            [
                METHOD,
                number_column("learning_rate"),
                number_column("step", "last step"),
                *measures,
                *verdicts,
            ],
            results.regimes,
        ),
        *_tables(
            "diverged",
            "Trainings that diverged",
            [METHOD, words_column("diverged")],
            [recording for recording in results.trajectories if recording.diverged],
        ),
        *_tables(
            "between",
            "From full fine-tuning at equal steps",
            [METHOD, words_column("kernel", names=KERNELS), distance, *along],
            results.between,
        ),
        *_tables("courses", "Every quantity at every recorded step", courses, results.courses),
    ]


def _claims(claims: Sequence[Claim]) -> list[Sheet]:
    keys = ("id", "statement", "verdict", "measured", "expected", "source")
    title = "Verdicts by the limits written down in ntk_propulsion.report.claims"
    return _tables("claims", title, [words_column(key) for key in keys], claims)


@cache
def _studies() -> list[Sheet]:
    """Return the claims table that the studies of this version published, if they did."""
    if not STUDIES.is_file():
        return []
    keys = ("id", "statement", "verdict", "measured", "about", "study", "rule")
    title = "Verdicts by rules written beforehand; on other models and data than this report's"
    rows: list[dict[str, Any]] = json.loads(STUDIES.read_text())
    return _tables("studies", title, [words_column(key) for key in keys], rows)


def _examples(results: Results) -> list[Sheet]:
    examples = results.examples
    columns = [
        number_column("row"),
        number_column("index", "index in the task"),
        _label_column(results.task),
        number_column("tokens"),
        words_column("text"),
    ]
    if any(example.pair for example in examples):
        columns.append(words_column("pair", "second text"))
    return _tables("examples", "Row: the order in the kernels", columns, examples)


def _label_column(task: TaskFacts) -> Column:
    return Column(
        "label", lambda example: example.label, lambda label: words.class_name(task.labels, label)
    )
