"""Short tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from ntk_propulsion import words
from ntk_propulsion.experiment.results import Results
from ntk_propulsion.measurements.tables import KernelDistance
from ntk_propulsion.report.answer import value_of
from ntk_propulsion.theory.estimate import Estimates
from ntk_propulsion.words import number

LOOK: dict[str, Any] = {
    "title_justify": "left",
    "box": box.SIMPLE_HEAD,
    "pad_edge": False,
    "collapse_padding": True,
}
TAKEN = {
    "theta0": "Propulsion at θ₀",
    "full_tuned": "  after full",
    "propulsion_tuned": "  after Propulsion",
}


def summary(results: Results) -> Table:
    """Return the distances from full fine-tuning's kernel, to fit 80 columns.

    Propulsion's come at each point, with and without the head; every other tuning has one line,
    before training and without the head (with it, if it trains nothing else).
    """
    title = f"Kernels against full fine-tuning's, N = {len(results.examples)}"
    table = Table(title=title, **LOOK)
    table.add_column("kernel", no_wrap=True)
    for heading in ("CKA", "best-scale error", "raw error"):
        table.add_column(heading, justify="right", no_wrap=True)
    for d in results.distances:
        if d.tuning == "propulsion" and d.part == "all":
            _add(table, TAKEN.get(d.point, d.point), d.metrics)
        elif d.tuning == "propulsion" and d.part == "without_head":
            _add(table, "    less head", d.metrics)
    controls = [d for d in results.distances if d.tuning != "propulsion"]
    if controls:
        table.add_section()
        table.add_row("others, less head")
    for tuning in dict.fromkeys(d.tuning for d in controls):
        _add_control(table, tuning, [d for d in controls if d.tuning == tuning])
    return table


def _add_control(table: Table, tuning: str, distances: Iterable[KernelDistance]) -> None:
    by_part = {d.part: d.metrics for d in distances if d.point == "theta0"}
    less, whole = by_part.get("without_head"), by_part.get("all")
    if less is not None:
        _add(table, f"  {words.tuning(tuning)}", less)
    elif whole is not None:
        _add(table, f"  {words.tuning(tuning)} (whole)", whole)


def _add(table: Table, name: str, metrics: Estimates) -> None:
    raw = value_of(metrics, "relative_frobenius")
    table.add_row(
        escape(name),
        _short(metrics, "cka"),
        _short(metrics, "best_scale_error"),
        words.show("relative_frobenius", raw),
    )


def _short(metrics: Estimates, name: str) -> str:
    """Write a number between 0 and 1 with its interval, in a width that never grows."""
    value = value_of(metrics, name)
    if value is None:
        return words.MISSING
    low, high = metrics[name].low, metrics[name].high
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def training(results: Results) -> Table | None:
    """Return what each training did, or None where nothing was trained."""
    if not results.training:
        return None
    metric = escape(results.task.metric or "metric")
    table = Table(title="Training", **LOOK)
    table.add_column("method")
    for heading in ("parameters", "steps", "rate", f"{metric} before", "after", "seconds"):
        table.add_column(heading, justify="right")
    for run in results.training:
        table.add_row(
            escape(words.tuning(run.method)),
            words.count(run.trainable_parameters),
            str(run.steps),
            f"{run.learning_rate:g}",
            number(run.metric_before),
            number(run.metric_after),
            number(run.seconds),
        )
    return table
