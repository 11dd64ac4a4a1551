"""The figures of the few-shot study, and its table by cells."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from analysis.framework.rules import Estimate, paired
from analysis.framework.tables import Row
from ntk_propulsion import words
from ntk_propulsion.figures import style
from ntk_propulsion.measurements import regime

ALL = "all"
FEATURES = {"linearization": "linearization error", "drift": "feature drift"}
SHIFTS = {"full": -0.17, "propulsion": 0.17}
START = "#333333"
TINY = 1e-9  # for 0 on a logarithmic axis
WIDEST = 0.5  # of a gap's axis


class Place(NamedTuple):
    """A cell of the table: all its seeds are one sample."""

    task: str
    head: str
    k: int | str
    method: str


def by_place(rows: Sequence[Row], column: str) -> dict[Place, list[float | None]]:
    """Return a column's values by cell, one a seed; a run that diverged may have none."""
    found: dict[Place, list[float | None]] = {}
    for row in rows:
        place = Place(row["task"], row["head"], row["k"], row["method"])
        found.setdefault(place, []).append(row.get(column))
    return found


def cell_estimates(rows: Sequence[Row], column: str, comparisons: int = 1) -> dict[Place, Estimate]:
    """Return the mean over seeds with its 95% t-interval by cell, Bonferroni-corrected.

    A cell with a run that diverged stays undecided: its interval is infinite.
    """
    found = {}
    for place, values in by_place(rows, column).items():
        known = [value for value in values if value is not None]
        whole = len(known) == len(values)
        found[place] = (
            paired(known, comparisons) if whole else Estimate(mean(values), -math.inf, math.inf)
        )
    return found


def mean(values: Sequence[float | None]) -> float:
    """Return the mean of the values that are there, NaN of none."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else math.nan


def few(rows: Sequence[Row]) -> list[Row]:
    """Return the few-shot runs."""
    return [row for row in rows if row["k"] != ALL]


def named(place: Place) -> str:
    """Return a cell's name in a sentence."""
    return f"{place.task} {place.head} {_size(place.k)} {place.method}"


def _sizes(rows: Sequence[Row]) -> list[tuple[str, int | str]]:
    """Return the groups of an axis: heads, and within them sizes, in the table's order."""
    found = list(dict.fromkeys((row["head"], row["k"]) for row in rows))
    heads = list(dict.fromkeys(head for head, _ in found))
    return sorted(found, key=lambda group: heads.index(group[0]))


def _size(k: int | str) -> str:
    return "full data" if k == ALL else f"k = {k}"


@style.styled
def behaviour(rows: Sequence[Row], about: str) -> Figure:
    """Draw linearization error and feature drift by task, head, size and method.

    Args:
        rows: The study's table.
        about: What the numbers rest on.
    """
    tasks, groups = list(dict.fromkeys(row["task"] for row in rows)), _sizes(rows)
    figure = Figure(figsize=(4 + 1.15 * len(groups), 1.9 + 3.3 * len(tasks)))
    axes = figure.subplots(len(tasks), 2, sharey=True, squeeze=False)
    for task, pair in zip(tasks, axes, strict=True):
        for ax, (column, label) in zip(pair, FEATURES.items(), strict=True):
            own = [row for row in rows if row["task"] == task]
            _levels(ax, own, column, groups)
            ax.set_title(f"{style.plain(task)}: {label}")
        pair[0].set_ylabel("relative to the whole change,\nor to $|J_0|$ (no unit)")
    seen = [row[column] for row in rows for column in FEATURES if row.get(column)]
    highs = [e.high for column in FEATURES for e in cell_estimates(rows, column).values()]
    top = max([regime.WEAKLY, *seen, *filter(math.isfinite, highs)])
    axes[0][0].set_ylim(0.7 * min([regime.HOLDS, *seen]), 1.4 * top)  # an interval may reach 0
    _above(axes[0][0], list(map(_method, SHIFTS)))
    style.frame(
        figure,
        "Kernel behaviour of few-shot fine-tuning",
        f"{style.plain(about)}. Left: |f_t - f_lin| / |f_t - f_0|; right: |J_t - J_0| / |J_0|, J "
        "of what the method trains. Dots: seeds; diamonds: their mean, lines its 95% t-interval. "
        "At or below a dashed line the property holds, or holds weakly.",
    )
    return figure


def _levels(ax: Axes, rows: Sequence[Row], column: str, groups: Sequence[tuple[Any, ...]]) -> None:
    values, found = by_place(rows, column), cell_estimates(rows, column)
    for level, name in ((regime.HOLDS, "holds"), (regime.WEAKLY, "weakly")):
        ax.axhline(level, color=style.GREY, linestyle="--", linewidth=1)
        where = ("axes fraction", "data")
        ax.annotate(name, (1.01, level), xycoords=where, ha="left", va="center", size=8)
    for place, each in values.items():
        x = groups.index((place.head, place.k)) + SHIFTS[place.method]
        colour, whole = style.TUNING_COLOURS[place.method], found[place]
        ax.plot([x - 0.06] * len(each), _floats(each), "o", color=colour, alpha=0.4, markersize=4)
        if math.isfinite(whole.high):
            ends = [max(whole.low, TINY), whole.high]
            ax.plot([x + 0.04] * 2, ends, color="black", linewidth=1)
        ax.plot(x + 0.04, whole.value, "D", color=colour, mec="black", markersize=5)
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_xticks(range(len(groups)), [f"{_size(k)}\n{head}" for head, k in groups])
    ax.set_xlim(-0.5, len(groups) - 0.5)
    for x in _turns(groups):
        ax.axvline(x, color="black", linewidth=0.8)
    ax.grid(axis="x", visible=False)


def _turns(groups: Sequence[tuple[Any, ...]]) -> Iterator[float]:
    """Yield the places between two groups where the head changes."""
    for i in range(1, len(groups)):
        if groups[i][0] != groups[i - 1][0]:
            yield i - 0.5


def _floats(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def _method(name: str) -> tuple[str, str, str, bool]:
    return words.tuning(name), style.TUNING_COLOURS[name], "D", True


def _above(ax: Axes, looks: Sequence[tuple[str, str, str, bool]]) -> None:
    """Put a legend above a panel, where it hides nothing."""
    handles = [
        Line2D([], [], color=c, marker=m, mfc=c if filled else "white", linestyle="", label=text)
        for text, c, m, filled in looks
    ]
    ax.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 1.08),
        ncols=len(handles),
        borderpad=0,
        columnspacing=1.2,
        handletextpad=0.3,
    )


@style.styled
def accuracies(rows: Sequence[Row], margin: float, about: str) -> Figure:
    """Draw the table: accuracy before, tuned and of the kernel solve, and their gap.

    Args:
        rows: The study's table.
        margin: Of the rule, in accuracy.
        about: What the numbers rest on.
    """
    places = sorted(by_place(rows, "before"), key=_order(rows))
    figure = Figure(figsize=(13, 2.3 + 0.46 * len(places)))
    axes = figure.subplots(1, 3, sharey=True, width_ratios=[1.5, 1, 1])
    _draw_accuracies(axes[0], rows, places)
    _draw_gaps(axes[1], rows, places, margin)
    _write_table(axes[2], rows, places)
    axes[0].set_yticks(range(len(places)), [style.plain(_labelled(place)) for place in places])
    axes[0].set_ylim(len(places) - 0.5, -0.5)
    for ax in axes[:2]:
        for y in range(1, len(places)):
            new = places[y][:2] != places[y - 1][:2]
            ax.axhline(y - 0.5, color="black" if new else "#DDDDDD", linewidth=0.8)
        ax.grid(axis="y", visible=False)
    style.frame(
        figure,
        "What the kernel solve reaches of fine-tuning, few-shot and on full data",
        f"{style.plain(about)}. Small dots: seeds; large marks: their mean. The kernel solve is "
        "ridge regression with the tuning's kernel at theta_0 from f_0, or from 0. Gap: tuned "
        "minus kernel solve from f_0, paired over seeds; lines: its 95% t-interval, that of the "
        f"few-shot cells Bonferroni-corrected, cut at ±{WIDEST:g}; band: ±{margin:g}. Right: mean "
        "± standard deviation over seeds.",
    )
    return figure


def _order(rows: Sequence[Row]) -> Callable[[Place], tuple[int, int]]:
    tasks, groups = list(dict.fromkeys(row["task"] for row in rows)), _sizes(rows)
    return lambda place: (tasks.index(place.task), groups.index((place.head, place.k)))


def _labelled(place: Place) -> str:
    method = words.tuning(place.method)
    return f"{place.task}, {place.head} head, {_size(place.k)}: {method}"


def _draw_accuracies(ax: Axes, rows: Sequence[Row], places: Sequence[Place]) -> None:
    """Draw four marks a line; only the tuned one and the solve from f_0 in the tuning's colour."""
    columns = {
        "before": ("before", START, "|", -0.27),
        "after": ("tuned", None, "o", -0.09),
        "kernel": ("kernel solve from $f_0$", None, "D", 0.09),
        "kernel_from_0": ("from 0", style.GREY, "X", 0.27),
    }
    for column, (_, colour, marker, shift) in columns.items():
        for place, each in by_place(rows, column).items():
            y = places.index(place) + shift
            c = colour or style.TUNING_COLOURS[place.method]
            face = c if column != "kernel" else "white"
            ax.plot(_floats(each), [y] * len(each), ".", color=c, alpha=0.4, markersize=4)
            ax.plot(mean(each), y, marker, color=c, mfc=face, markersize=6)
    ax.axvline(0.5, color=style.GREY, linestyle="--", linewidth=1)
    ax.set_xlabel("accuracy on the test examples (dashed: 0.5)")
    _above(
        ax,
        [(text, c or style.BLUE, m, key != "kernel") for key, (text, c, m, _) in columns.items()],
    )


def _draw_gaps(ax: Axes, rows: Sequence[Row], places: Sequence[Place], margin: float) -> None:
    shots = few(rows)
    found = cell_estimates(shots, "gap", comparisons=max(1, len(by_place(shots, "gap"))))
    found |= cell_estimates([row for row in rows if row["k"] == ALL], "gap")
    seen = [abs(v) for each in by_place(rows, "gap").values() for v in each if v is not None]
    reach = max([*seen, *(e.high for e in found.values() if math.isfinite(e.high)), 2 * margin])
    ax.axvspan(-margin, margin, color="#EFEFEF", zorder=0)
    ax.axvline(0, color=style.GREY, linewidth=0.8)
    for place, each in by_place(rows, "gap").items():
        y, gap = places.index(place), found[place]
        colour = style.TUNING_COLOURS[place.method]
        ax.plot(_floats(each), [y - 0.12] * len(each), ".", color=colour, alpha=0.5, markersize=4)
        if math.isfinite(gap.high):
            ax.plot([gap.low, gap.high], [y + 0.08] * 2, color="black", linewidth=1)
        ax.plot(gap.value, y + 0.08, "D", color=colour, mec="black", markersize=5)
    reach = min(1.05 * reach, WIDEST)
    ax.set_xlim(-reach, reach)
    ax.set_xlabel("gap of accuracy: tuned minus kernel solve")


def _write_table(ax: Axes, rows: Sequence[Row], places: Sequence[Place]) -> None:
    """Write mean and standard deviation over seeds of every column."""
    columns = {"before": "before", "after": "tuned", "kernel": "solve", "gap": "gap"}
    ax.set_axis_off()
    ax.set_xlim(-0.5, len(columns) - 0.5)
    for x, (column, title) in enumerate(columns.items()):
        ax.annotate(
            title, (x, 1.01), xycoords=("data", "axes fraction"), ha="center", weight="bold"
        )
        for place, each in by_place(rows, column).items():
            ax.text(x, places.index(place), _spread(each), ha="center", va="center", size=8)


def _spread(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "diverged"
    spread = f"\n± {np.std(known, ddof=1):.3f}" if len(known) > 1 else ""
    return f"{np.mean(known):.3f}{spread}"
