"""The figures of convergence: the metric over steps, and what a larger training set does to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from analysis.framework.tables import Row, where
from ntk_propulsion import words
from ntk_propulsion.figures import style


@style.styled
def curves(rows: Sequence[Row], about: str) -> Figure:
    """Draw the metric over steps, a row of panels for each task and a column for each size.

    Args:
        rows: The study's table.
        about: What the numbers rest on.
    """
    done = where(rows, kind="evaluation")
    tasks, sizes = _names(done, "task"), _names(done, "size")
    looks = style.tuning_looks(_names(done, "method"))
    figure = Figure(figsize=(max(10.5, 2.7 * len(sizes)), 1.9 + 2.6 * len(tasks)))
    axes = figure.subplots(len(tasks), len(sizes), sharex=True, sharey="row", squeeze=False)
    for line, task in zip(axes, tasks, strict=True):
        for ax, size in zip(line, sizes, strict=True):
            _panel(ax, where(rows, task=task, size=size), looks)
            ax.set_title(f"{style.plain(task)}, {size} examples")
        line[0].set_ylabel(f"{where(done, task=task)[0]['metric_name']} on test examples")
    for ax in axes[-1]:
        ax.set_xlabel("step")
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=5)
    style.frame(
        figure,
        "Convergence: the metric over the steps of training",
        f"{style.plain(about)}. Lines: means over seeds; bands: their least and largest. Dotted: "
        "the level, 90% of the way from before training to full fine-tuning's best, mean over "
        "seeds; without one full fine-tuning improved nothing.",
    )
    return figure


def _panel(ax: Axes, rows: Sequence[Row], looks: dict[str, tuple[str, str]]) -> None:
    for method, (colour, marker) in looks.items():
        own = where(rows, kind="evaluation", method=method)
        steps = [s for s in _names(own, "step") if _metrics(where(own, step=s))]
        found = [_metrics(where(own, step=step)) for step in steps]
        label, mean = words.tuning(method), [np.mean(values) for values in found]
        ax.plot(steps, mean, color=colour, marker=marker, markersize=3.5, label=label)
        low, high = [min(v) for v in found], [max(v) for v in found]
        ax.fill_between(steps, low, high, color=colour, alpha=0.13, linewidth=0)
    levels = [r["level"] for r in where(rows, kind="run") if r["level"] is not None]
    if levels:
        ax.axhline(float(np.mean(levels)), color=style.GREY, linestyle=":", linewidth=1.2)


@style.styled
def by_size(rows: Sequence[Row], never: int, about: str) -> Figure:
    """Draw steps to the level and the last metric by the number of training examples.

    Args:
        rows: The study's table.
        never: What runs count that do not reach their level.
        about: What the numbers rest on.
    """
    done = where(rows, kind="run")
    tasks, sizes = _names(done, "task"), _names(done, "size")
    at = [step for step in _names(where(rows, kind="evaluation"), "step") if step]
    looks = style.tuning_looks(_names(done, "method"))
    figure = Figure(figsize=(10.5, 1.9 + 3 * len(tasks)))
    axes = figure.subplots(len(tasks), 2, sharex=True, squeeze=False)
    for (steps, metric), task in zip(axes, tasks, strict=True):
        own = where(done, task=task)
        for place, (method, look) in enumerate(looks.items()):
            shift = 2 ** (0.12 * (place - (len(looks) - 1) / 2))  # side by side, not overlapping
            of = where(own, method=method)
            _points(steps, of, "steps_to_level", shift, look)
            _points(metric, of, "final_metric", shift, look)
        steps.axhline(never, color=style.GREY, linestyle="--", linewidth=1, zorder=0)
        steps.set_yscale("log", base=2)
        steps.set_yticks(at, [str(step) for step in at])
        steps.yaxis.set_minor_locator(NullLocator())
        steps.set_title(f"{style.plain(task)}: steps to the level")
        steps.set_ylabel("steps")
        metric.set_title(f"{style.plain(task)}: at the last step")
        metric.set_ylabel(f"{own[0]['metric_name']} on test examples")
    for ax in axes[-1]:
        ax.set_xlabel("training examples")
    for ax in axes.flat:
        ax.set_xscale("log", base=2)
        ax.set_xticks(sizes, [str(size) for size in sizes])
        ax.xaxis.set_minor_locator(NullLocator())
    figure.legend(*axes[0, 1].get_legend_handles_labels(), loc="outside upper right", ncols=4)
    style.frame(
        figure,
        "Convergence by the size of the training set",
        f"{style.plain(about)}. Marks: seeds; lines: their mean (of steps the geometric one). "
        "Level: 90% of the way from before training to full fine-tuning's best, of each task, size "
        f"and seed. Hollow, on the dashed line: never reached, counted as {never} steps. Where "
        "full fine-tuning improved nothing there is no level.",
    )
    return figure


def _points(
    ax: Axes,
    rows: Sequence[Row],
    column: str,
    shift: float,
    look: tuple[str, str],
) -> None:
    """Draw a method's seeds, and the line of their means."""
    colour, marker = look
    steps = column == "steps_to_level"
    found = [row for row in rows if row[column] is not None]
    for row in found:
        face = "white" if steps and not row["reached"] else colour
        ax.plot(
            *(row["size"] * shift, row[column], marker),
            color=colour,
            mfc=face,
            alpha=0.75,
            markersize=5,
        )
    means = []
    for size in _names(found, "size"):
        values = np.array([row[column] for row in where(found, size=size)], dtype=float)
        means.append((size, 2 ** np.log2(values).mean() if steps else values.mean()))
    places, line = [size * shift for size, _ in means], [mean for _, mean in means]
    label = words.tuning(rows[0]["method"])
    ax.plot(places, line, color=colour, marker=marker, markersize=0, label=label)


def _names(rows: Sequence[Row], column: str) -> list[Any]:
    """Return a column's values, each once, in order of appearance."""
    return list(dict.fromkeys(row[column] for row in rows))


def _metrics(rows: Sequence[Row]) -> list[float]:
    return [row["metric"] for row in rows if row["metric"] is not None]
