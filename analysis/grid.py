"""Configurations of Propulsion times seeds: kernel distance before and metric after training.

The studies of initialisation, position, layers and pooling are such grids; each names its
configurations and judges the table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
from matplotlib.figure import Figure

from analysis.options import Training
from analysis.rules import Estimate, Verdict, paired, predicts, rank_correlation, verdict
from analysis.study import Row, Work, seeds
from analysis.subject import Parts, Subject, subject
from ntk_propulsion.errors import InputError
from ntk_propulsion.models import LoadedModel
from ntk_propulsion.propulsion import PropulsionConfig, count_parameters, scalings, wrap
from ntk_propulsion.report import style
from ntk_propulsion.theory.distances import compare_kernels
from ntk_propulsion.training import TrainingDiverged, TrainingLog

Configurations = Mapping[str, PropulsionConfig]
QUICK = {
    "examples": 8,
    "seeds": 2,
    "steps": 3,
    "batch_size": 8,
    "probe_examples": 60,
    "test_examples": 60,
}
DISTANCES = ("alignment", "cka", "unbiased_cka", "best_scale_error", "relative_frobenius")


def measure(
    settings: Training,
    work: Work,
    configurations: Callable[[Subject], Configurations],
) -> list[Row]:
    """Train every configuration at every seed and measure its kernel before it.

    Args:
        settings: Of the study.
        work: Keeps each (seed, configuration).
        configurations: By name, on the model at hand.

    Returns:
        A row for each seed and configuration: ``metric`` after and ``metric_before`` training,
        distances of K_P at its start from K_F at theta_0 (``all_...`` and ``without_head_...``),
        the number of trained parameters, the last loss and the range of z.
    """
    rows: list[Row] = []
    for seed in seeds(settings):
        at = subject(settings, seed)
        before = _Before(at)
        for name, config in configurations(at).items():
            rows += work.cell(f"{seed}-{name}", partial(before.rows, name, config))
    return rows


class _Before:
    """Full fine-tuning's kernel and the metric before training, computed once where needed."""

    def __init__(self, at: Subject) -> None:
        self.at = at
        self._full: dict[str, Parts] = {}
        self._metric = math.nan

    def rows(self, name: str, config: PropulsionConfig) -> list[Row]:
        """Return the row of one configuration."""
        if not self._full:
            self._full = self.at.parts(self.at.kernels(["full"]))
            self._metric = self.at.metric()
        wrapped = self.at.copy().model
        parameters = count_parameters(wrapped, config).total
        wrap(wrapped, config)
        kernel = self.at.parts(self.at.kernels(["propulsion"], wrapped))["propulsion"]
        row = {
            "configuration": name,
            "seed": self.at.seed,
            "task": self.at.materials.task.name,
            "metric_name": self.at.materials.task.metric,
            "metric_before": self._metric,
            **trained(self.at, config, cast(Training, self.at.settings).learning_rate),
            "parameters": parameters,
            "trace": float(np.trace(kernel["all"])) if "all" in kernel else 0.0,
            **self._distances(kernel),
        }
        return [row]

    def _distances(self, kernel: Parts) -> Row:
        found: Row = {}
        for part in ("all", "without_head"):
            try:
                every = compare_kernels(kernel[part], self._full["full"][part], self.at.outputs)
            except (InputError, KeyError):  # a gain of 0 to rounding leaves no kernel
                every = {}
            found |= {f"{part}_{name}": every.get(name) for name in DISTANCES}
        return found


def trained(
    at: Subject,
    config: PropulsionConfig,
    learning_rate: float,
    also: Callable[[LoadedModel, TrainingLog], Row] = lambda tuned, log: {},
) -> Row:
    """Train one configuration and return its metric, last loss and range of z.

    A training that diverges is a result too: its metric is that of no training, None.

    Args:
        at: What is trained on.
        config: What is trained.
        learning_rate: The peak.
        also: Gives further columns, from the tuned model and the log of its training.
    """
    try:
        tuned, log = at.tune(config, learning_rate)
    except TrainingDiverged as diverged:
        return {"metric": None, "loss": None, "note": str(diverged)}
    z = np.concatenate([s.z.detach().cpu().numpy().ravel() for s in scalings(tuned.model).values()])
    return {
        "metric": at.metric(tuned),
        "loss": float(np.mean(log.losses[-5:])),
        "z_min": float(z.min()),
        "z_max": float(z.max()),
        **also(tuned, log),
    }


def by_configuration(rows: Sequence[Row], column: str) -> dict[str, np.ndarray]:
    """Return a column's values by configuration, over seeds in their order; absent ones are NaN."""
    names = list(dict.fromkeys(row["configuration"] for row in rows))
    return {
        name: np.array(
            [
                math.nan if row.get(column) is None else float(row[column])
                for row in sorted(rows, key=lambda row: row["seed"])
                if row["configuration"] == name
            ]
        )
        for name in names
    }


def differences(
    rows: Sequence[Row],
    one: str,
    others: Sequence[str],
    column: str = "metric",
    comparisons: int | None = None,
) -> dict[str, Estimate]:
    """Return one configuration minus each other, paired over seeds.

    Intervals are Bonferroni-corrected for so many comparisons, by default as many as others.

    Seeds at which either diverged are left out of that pair.
    """
    values = by_configuration(rows, column)
    found = {}
    for other in others:
        difference = values[one] - values[other]
        difference = difference[np.isfinite(difference)]
        if len(difference):
            found[other] = paired(difference.tolist(), comparisons or len(others))
    return found


def predicts_metric(rows: Sequence[Row], settings: Training) -> Verdict:
    """Judge D1: whether the kernel's distance at the start predicts the metric."""
    distance = by_configuration(rows, "without_head_best_scale_error")
    metric = by_configuration(rows, "metric")
    points = [
        (np.nanmean(distance[name]), np.nanmean(metric[name]))
        for name in metric
        if _defined(metric[name]) and _defined(distance[name])
    ]
    found = rank_correlation(*zip(*points, strict=True)) if points else Estimate(*[math.nan] * 3)
    text = f"Spearman {found} over {len(points)} configurations"
    return verdict("D1", predicts(found), text, about(rows, settings))


def _defined(values: np.ndarray) -> bool:
    return bool(np.isfinite(values).any())


def about(rows: Sequence[Row], settings: Training) -> str:
    """Say which model, data, N and seeds a verdict rests on."""
    task = rows[0]["task"] if rows else settings.task_name
    return (
        f"{settings.model}, {task}, N = {settings.examples}, {settings.seeds} seeds, "
        f"{settings.outputs}, degree {settings.degree}, {settings.steps} steps at "
        f"{settings.learning_rate:g}, {settings.head} head, metric on {settings.test_examples}"
    )


@style.styled
def draw(rows: Sequence[Row], settings: Training, title: str) -> Figure:
    """Draw metric and kernel distance of each configuration, and one against the other."""
    metric = by_configuration(rows, "metric")
    figure = Figure(figsize=(12, max(4.2, 1.6 + 0.3 * len(metric))))
    left, middle, right = figure.subplots(1, 3, width_ratios=[1, 1, 1])
    looks = style.appearance(metric)
    before = float(np.mean([row["metric_before"] for row in rows]))
    _dots(left, metric, looks)
    left.axvline(before, color=style.GREY, linestyle="--", linewidth=1, label="before training")
    left.legend(loc="lower left", bbox_to_anchor=(0, 1), borderpad=0)
    left.set_xlabel(f"{rows[0]['metric_name']} after training")
    _dots(middle, by_configuration(rows, "without_head_best_scale_error"), looks)
    middle.set_yticklabels([])
    middle.set_xlabel("best-scale error of $K_P$ to $K_F$, start, without head")
    distance = by_configuration(rows, "without_head_best_scale_error")
    for name, (colour, marker) in looks.items():
        right.plot(distance[name], metric[name], marker, color=colour, alpha=0.75, markersize=5)
    right.set_xlabel("best-scale error")
    right.set_ylabel(f"{rows[0]['metric_name']} after training")
    style.frame(
        figure,
        title,
        f"{about(rows, settings)}. Dots: seeds; bars: their mean; the right "
        f"panel's marks are those of the left one.",
    )
    return figure


def _dots(ax: Any, values: Mapping[str, np.ndarray], looks: Mapping[str, tuple[str, str]]) -> None:
    for place, (name, found) in enumerate(values.items()):
        colour, marker = looks[name]
        ax.plot(found, [place] * len(found), marker, color=colour, alpha=0.6, markersize=5)
        if _defined(found):
            ax.plot([np.nanmean(found)] * 2, [place - 0.3, place + 0.3], color=colour, linewidth=2)
    ax.set_yticks(range(len(values)), [style.plain(name) for name in values])
    ax.set_ylim(len(values) - 0.5, -0.5)
