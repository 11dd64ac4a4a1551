"""Short tables for the terminal."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from ntk_propulsion import words
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


def summary(results: dict[str, Any]) -> Table:
    """Return the distances from full fine-tuning's kernel, to fit 80 columns.

    Propulsion's come at each point, with and without the head; every other tuning has one line,
    before training and without the head (with it, if it trains nothing else).
    """
    title = f"Kernels against full fine-tuning's, N = {len(results['examples'])}"
    table = Table(title=title, **LOOK)
    table.add_column("kernel", no_wrap=True)
    for heading in ("CKA", "best-scale error", "raw error"):
        table.add_column(heading, justify="right", no_wrap=True)
    distances = results["distances"]
    for d in words.rows(distances, tuning="propulsion"):
        if d["part"] == "all":
            _add(table, TAKEN.get(d["point"], str(d["point"])), d)
        elif d["part"] == "without_head":
            _add(table, "    less head", d)
    controls = [d["tuning"] for d in distances if d["tuning"] != "propulsion"]
    if controls:
        table.add_section()
        table.add_row("others, less head")
    for tuning in dict.fromkeys(controls):
        less = words.row(distances, tuning=tuning, point="theta0", part="without_head")
        whole = words.row(distances, tuning=tuning, point="theta0", part="all")
        found = less or whole
        if found is not None:
            _add(table, f"  {words.tuning(tuning)}{'' if less else ' (whole)'}", found)
    return table


def _add(table: Table, name: str, distance: words.Row) -> None:
    raw = words.metric(distance, "relative_frobenius")[0]
    table.add_row(
        escape(name),
        _short(distance, "cka"),
        _short(distance, "best_scale_error"),
        words.show("relative_frobenius", raw),
    )


def _short(distance: words.Row, name: str) -> str:
    """Write a number between 0 and 1 with its interval, in a width that never grows."""
    value, low, high = words.metric(distance, name)
    if value is None:
        return words.MISSING
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def training(results: dict[str, Any]) -> Table | None:
    """Return what each training did, or None where nothing was trained."""
    if not results.get("training"):
        return None
    metric = escape(str(results["task"].get("metric") or "metric"))
    table = Table(title="Training", **LOOK)
    table.add_column("method")
    for heading in ("parameters", "steps", "rate", f"{metric} before", "after", "seconds"):
        table.add_column(heading, justify="right")
    for run in results["training"]:
        table.add_row(
            escape(words.tuning(run["method"])),
            words.count(run["trainable_parameters"]),
            str(run["steps"]),
            f"{run['learning_rate']:g}",
            number(run.get("metric_before")),
            number(run.get("metric_after")),
            number(run.get("seconds")),
        )
    return table
