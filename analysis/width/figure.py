"""Both distances by width, and the slopes of the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from analysis.framework.tables import Row
from analysis.width.curves import (
    ALL,
    DISTANCE,
    DISTANCES,
    PROPULSION,
    REDRAWN,
    SLOPE,
    WHOLE,
    curves,
)
from analysis.width.measurements import Settings
from analysis.width.verdicts import about
from ntk_propulsion.figures import style
from ntk_propulsion.report.answer import CLOSE

TITLES = {"mlp": "perceptron, 3 hidden layers", "bert": "BERT, 2 layers"}
CHANCE = {"best_scale_error": -0.5, "cka_distance": -1.0}  # their slopes if all error is sampling


def draw(rows: Sequence[Row], settings: Settings) -> Mapping[str, Figure]:
    """Draw both distances by width, and the slopes of the first."""
    return {"figure": _figure(rows, settings)}


@style.styled
def _figure(rows: Sequence[Row], settings: Settings) -> Figure:
    networks = list(dict.fromkeys(row["network"] for row in rows))
    figure = Figure(figsize=(13, 0.6 + 3.9 * len(networks)))
    grid = figure.add_gridspec(len(networks), 3, width_ratios=[1, 1, 1.05])
    for i, network in enumerate(networks):
        keys = [row for row in rows if row["kind"] == DISTANCE and row["network"] == network]
        looks = _looks([row["group"] for row in keys])
        for j, distance in enumerate(DISTANCES):
            _draw_curves(figure.add_subplot(grid[i, j]), rows, network, distance, looks)
        _draw_slopes(figure.add_subplot(grid[i, 2]), rows, network, looks)
    style.frame(
        figure,
        "Random networks: distance of Propulsion's kernel from full fine-tuning's, by width",
        f"{about(settings)}. Lines: geometric mean over seeds (dots) and over modules of one role. "
        f"Bars: 95% t-interval over seeds of the slope of log(best-scale error) on log(width). "
        "Independent weights: every layer's weights drawn anew for K_P, its inputs and cotangents "
        "as they were. Dotted: the slope of pure chance, -1/2 of the error and -1 of 1 - CKA. "
        f"Grey line: {CLOSE}, close by the rule.",
    )
    return figure


def _looks(groups: Sequence[str]) -> dict[str, tuple[str, str]]:
    wholes = [part for part in WHOLE if part in groups]
    return {ALL: ("black", "o")} | style.appearance(
        [*wholes[1:], *(group for group in groups if group not in WHOLE)]
    )


def _draw_curves(
    ax: Axes,
    rows: Sequence[Row],
    network: str,
    distance: str,
    looks: Mapping[str, tuple[str, str]],
) -> None:
    found = curves(rows, distance)
    for group, (colour, marker) in looks.items():
        whole = group in WHOLE
        by_seed = found[network, PROPULSION, group]
        widths = sorted(next(iter(by_seed.values())))
        values = np.array([[curve[width] for width in widths] for curve in by_seed.values()])
        line = np.exp(np.log(values).mean(axis=0))
        ax.plot(widths, line, color=colour, linewidth=2.4 if whole else 1.2, zorder=3 + whole)
        if whole:
            ax.plot(widths, values.T, marker, color=colour, alpha=0.35, markersize=4)
        else:
            ax.plot(widths, line, marker, color=colour, markersize=4)
    chance = 0.9 * (np.array(widths) / widths[0]) ** CHANCE[distance]
    ax.plot(widths, chance, ":", color=style.GREY)
    if distance == "best_scale_error":
        ax.axhline(CLOSE, color=style.GREY, linewidth=0.9)
    ax.set(xscale="log", yscale="log", xlabel="width", ylabel=DISTANCES[distance])
    ax.set_xticks(widths, [str(width) for width in widths])
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()
    ax.set_title(TITLES[network])


def _draw_slopes(
    ax: Axes, rows: Sequence[Row], network: str, looks: Mapping[str, tuple[str, str]]
) -> None:
    chosen = [
        row
        for row in rows
        if row["kind"] == SLOPE
        and row["network"] == network
        and row["distance"] == "best_scale_error"
    ]
    for place, (group, (colour, marker)) in enumerate(looks.items()):
        for row in (row for row in chosen if row["group"] == group):
            ours = row["tuning"] == PROPULSION
            at = place - 0.15 if ours else place + 0.15
            if row["low"] is not None:
                ax.plot([row["low"], row["high"]], [at, at], color=colour, linewidth=1.3)
            face = colour if ours else "white"
            ax.plot(row["slope"], at, marker, color=colour, mfc=face, markersize=5.5)
    for value, dash in ((0, "-"), (-0.5, ":")):
        ax.axvline(value, color=style.GREY, linestyle=dash, linewidth=1)
    ax.set_yticks(range(len(looks)), list(looks))
    for label, (colour, _) in zip(ax.get_yticklabels(), looks.values(), strict=True):
        label.set_color(colour)
    ax.set_ylim(len(looks) - 0.5, -0.5)
    ax.set_xlabel("slope of log best-scale error on log width")
    handles = [
        Line2D([], [], color="black", marker="o", mfc=face, linestyle="", label=label)
        for label, face in (("Propulsion", "black"), (REDRAWN, "white"))
    ]
    ax.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=2)
