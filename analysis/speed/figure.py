"""The figure of steps predicted and measured: by level, by step, by method, and the spectra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.framework.tables import Row
from ntk_propulsion import words
from ntk_propulsion.figures import style

Looks = Mapping[str, tuple[str, str]]


@style.styled
def draw(
    rows: Sequence[Row], methods: Sequence[str], cap: int, octaves: float, about: str
) -> Figure:
    """Draw the study.

    Args:
        rows: Its table.
        methods: What was trained.
        cap: Steps that no training went beyond.
        octaves: By which the rule lets measured steps differ from predicted ones.
        about: What the numbers rest on.
    """
    figure = Figure(figsize=(12.5, 9.6))
    ((steps, losses), (spectra, rates)) = figure.subplots(2, 2)
    looks = style.tuning_looks(methods)
    levels = list(dict.fromkeys(row["level"] for row in rows if row["kind"] == "steps"))
    for method, (colour, marker) in looks.items():
        own = [row for row in rows if row["method"] == method]
        _steps(steps, [row for row in own if row["kind"] == "steps"], cap, colour, marker)
        _losses(losses, [row for row in own if row["kind"] == "loss"], colour)
        for seed in sorted({row["seed"] for row in own}):
            found = [r["value"] for r in own if r["kind"] == "mode" and r["seed"] == seed]
            ranks = range(1, len(found) + 1)
            spectra.plot(ranks, found, color=colour, marker=marker, markersize=3, linewidth=1)
    _frame_steps(steps, cap, octaves)
    losses.set(yscale="log", xlabel="step", ylabel="loss / first loss", ylim=(0.03, 3))
    losses.set_title("losses at matched rates, first seed")
    spectra.set(yscale="log", xlabel="mode", ylabel="eigenvalue of the kernel / N")
    spectra.set_title("spectra at $\\theta_0$, every seed")
    level = sorted(levels)[len(levels) // 2]
    _rates(rates, [r for r in rows if r["kind"] == "steps" and r["level"] == level], looks, cap)
    rates.set_title(f"predicted steps to {level:g} of the way still to go")
    figure.legend(handles=_handles(looks), loc="outside right upper")
    style.frame(
        figure,
        "Steps of training, predicted from the kernel's spectrum and measured",
        f"{style.plain(about)}. Matched: each method at half its own stable rate; fixed: all at "
        "the smallest of these. Top left: a mark for each seed and level "
        f"({', '.join(f'{level:g}' for level in levels)} of the way from the first loss to the "
        "kernel's floor still to go) that is predicted within the cap; band: a factor of "
        f"{2**octaves:.2f}; top line: not reached within {cap} steps, or diverged.",
    )
    return figure


def _handles(looks: Looks) -> list[Line2D]:
    grey: dict[str, Any] = {"color": style.GREY}
    return [
        *(
            Line2D([], [], color=colour, marker=marker, label=words.tuning(method))
            for method, (colour, marker) in looks.items()
        ),
        Line2D([], [], marker="o", linestyle="", label="matched rates", **grey),
        Line2D([], [], marker="o", linestyle="", mfc="white", label="fixed rate", **grey),
        Line2D([], [], linestyle="-", label="measured loss", **grey),
        Line2D([], [], linestyle="--", label="predicted loss", **grey),
    ]


def _steps(ax: Axes, rows: Sequence[Row], cap: int, colour: str, marker: str) -> None:
    for row in rows:
        if row["predicted"] <= cap:
            y = 1.6 * cap if row["measured"] is None else row["measured"]
            face = colour if row["rates"] == "matched" else "white"
            ax.plot(row["predicted"], y, marker, color=colour, mfc=face, markersize=5, alpha=0.8)


def _frame_steps(ax: Axes, cap: int, octaves: float) -> None:
    line = np.array([0.2, cap])
    ax.plot(line, line, color="black", linewidth=1)
    ax.fill_between(line, line / 2**octaves, line * 2**octaves, color="#EFEFEF", zorder=0)
    ax.axhline(cap, color=style.GREY, linestyle=":", linewidth=1)
    ax.set(xscale="log", yscale="log", xlabel="predicted steps", ylabel="measured steps")
    ax.set_ylim(top=2.3 * cap)
    ax.annotate("not reached", (0.02, 1.6 * cap), xycoords=("axes fraction", "data"), va="center")
    ax.set_title("steps to each loss level")


def _losses(ax: Axes, rows: Sequence[Row], colour: str) -> None:
    first = min((row["seed"] for row in rows), default=0)
    own = [row for row in rows if (row["rates"], row["seed"]) == ("matched", first)]
    for key, dash in (("measured", "-"), ("predicted", "--")):
        values = [row[key] / own[0][key] for row in own]
        ax.plot([row["step"] for row in own], values, dash, color=colour, linewidth=1.4)


def _rates(ax: Axes, rows: Sequence[Row], looks: Looks, cap: int) -> None:
    """Draw predicted steps of each method at its own rate and at the slowest one's."""
    for place, (method, (colour, marker)) in enumerate(looks.items()):
        for row in (row for row in rows if row["method"] == method):
            face = colour if row["rates"] == "matched" else "white"
            ax.plot(row["predicted"], place, marker, color=colour, mfc=face, markersize=6)
    ax.axvline(cap, color=style.GREY, linestyle=":", linewidth=1)
    ax.annotate("cap", (cap, -0.55), va="top", size=8)
    ax.set_yticks(range(len(looks)), [words.tuning(method) for method in looks])
    ax.set(xscale="log", xlabel="predicted steps", ylim=(len(looks) - 0.4, -0.6))
