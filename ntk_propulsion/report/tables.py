"""Short tables for the terminal."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from ntk_propulsion.report import words
from ntk_propulsion.report.words import interval, number

BRACKETED = ("cka", "best_scale_error")  # an 80-column terminal has room for two intervals
LOOK: dict[str, Any] = {
    "title_justify": "left",
    "box": box.SIMPLE_HEAD,
    "pad_edge": False,
    "collapse_padding": True,
}
TAKEN = {
    "theta0": "at θ₀",
    "full_tuned": "after full",
    "propulsion_tuned": "after Prop.",
}


def summary(results: dict[str, Any]) -> Table:
    """Return the distances from full fine-tuning's kernel, one line a tuning, point and part."""
    shown = ("cka", "alignment", "best_scale_error", "relative_frobenius")
    title = f"Kernels against full fine-tuning's, N = {len(results['examples'])}"
    table = Table(title=title, **LOOK)
    table.add_column("kernel", no_wrap=True)
    for name in shown:
        table.add_column(words.metric_label(name), justify="right")
    above = None
    for d in results["distances"]:
        if d["part"] == "head":
            continue
        if d["tuning"] != above:
            above = d["tuning"]
            table.add_row(f"[bold]{escape(words.tuning(above))}[/bold]")
        taken = TAKEN.get(d["point"], escape(str(d["point"])))
        table.add_row(
            taken if d["part"] == "all" else "  less head",
            *(
                interval(d, metric)
                if metric in BRACKETED
                else words.show(metric, words.metric(d, metric)[0])
                for metric in shown
            ),
        )
    return table


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
