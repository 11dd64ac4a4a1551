"""Figures of scaling vectors: by depth and role, as histograms, and how alike trainings are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.framework.tables import Row
from ntk_propulsion.figures import style
from ntk_propulsion.propulsion import NEAR_ONE, TOTAL

ENDS = ("embedding", "head")  # outside of the blocks, one before them, one behind
BINS = 121


def _kind(rows: Sequence[Row], kind: str) -> list[Row]:
    return [row for row in rows if row.get("kind") == kind]


def _colours(rows: Sequence[Row]) -> dict[str, str]:
    return {task: look[0] for task, look in style.appearance(r["task"] for r in rows).items()}


@style.styled
def by_depth(rows: Sequence[Row], about: str) -> Figure:
    """Draw quantiles of z and of its gains: a row of panels for each role, depth from the left."""
    groups = [row for row in _kind(rows, "group") if row["role"] != TOTAL]
    depths = sorted({int(row["depth"]) for row in groups if _deep(row)})
    roles = list(dict.fromkeys(row["role"] for row in groups if row["role"] not in ENDS))
    panels: dict[str, tuple[str, ...]] = {role.replace("_", " "): (role,) for role in roles}
    if any(row["role"] in ENDS for row in groups):
        panels["embedding, head"] = ENDS
    colours = _colours(groups)
    runs = list(dict.fromkeys((row["task"], row["seed"]) for row in groups))
    figure = Figure(figsize=(13, 1.9 + 1.75 * len(panels)))
    axes = figure.subplots(len(panels), 2, sharex=True, sharey="col", squeeze=False)
    offsets = (np.arange(len(runs)) - (len(runs) - 1) / 2) * 0.7 / len(runs)
    for pair, (label, members) in zip(axes, panels.items(), strict=True):
        for ax, what in zip(pair, ("z", "gain"), strict=True):
            ax.axhspan(*NEAR_ONE, color="#EFEFEF", zorder=0)
            for row in groups:
                if row["role"] in members:
                    offset = offsets[runs.index((row["task"], row["seed"]))]
                    _quantiles(ax, _place(row, depths) + offset, row, what, colours[row["task"]])
        pair[0].set_ylabel(label)
    for task, colour in colours.items():
        axes[0, 0].plot([], [], "o", color=colour, label=style.plain(task))
    names = ["emb", *map(str, depths), "head"]
    for ax in axes[-1]:
        ax.set_xticks(range(-1, len(depths) + 1), names)
        ax.set_xlabel("depth (number of the block)")
    axes[0, 0].set_title("z")
    axes[0, 1].set_title("gain $z^k$")
    figure.legend(loc="outside upper right", ncols=len(colours))
    style.frame(
        figure,
        "Learned scaling vectors by depth and role",
        f"{style.plain(about)}. Dots: medians over the neurons of a role in a block; thick lines: "
        "the middle half; thin lines: 5% to 95%. Each task's seeds stand side by side. Shaded: "
        f"[{NEAR_ONE[0]:g}, {NEAR_ONE[1]:g}].",
    )
    return figure


def _deep(row: Row) -> bool:
    return row["depth"] not in (None, "")


def _place(row: Row, depths: list[int]) -> int:
    if _deep(row):
        return depths.index(int(row["depth"]))
    return len(depths) if row["role"] == "head" else -1


def _quantiles(ax: Axes, x: float, row: Row, what: str, colour: str) -> None:
    q5, q25, q50, q75, q95 = (row[f"{what}_q{q}"] for q in (5, 25, 50, 75, 95))
    ax.plot([x, x], [q5, q95], color=colour, linewidth=0.9)
    ax.plot([x, x], [q25, q75], color=colour, linewidth=2.6)
    ax.plot(x, q50, "o", color=colour, markersize=3.5)


@style.styled
def histograms(rows: Sequence[Row], degree: int, about: str) -> Figure:
    """Draw how z and its gains are distributed, a line for each task, seeds together."""
    totals = [row for row in _kind(rows, "group") if row["role"] == TOTAL]
    colours = _colours(totals)
    arrays = {row["name"]: np.asarray(row["array"], float) for row in rows if "array" in row}
    pooled = {
        task: np.concatenate(
            [arrays[f"{task}, seed {row['seed']}"] for row in totals if row["task"] == task]
        )
        for task in colours
    }
    figure = Figure(figsize=(12, 4.6))
    axes = figure.subplots(1, 2, sharey=True)
    for ax, power, label in ((axes[0], 1, "z"), (axes[1], degree, f"gain $z^{{{degree}}}$")):
        values = {task: z**power for task, z in pooled.items()}
        reach = max(float(np.abs(v - 1).max()) for v in values.values()) or 1e-6
        low = min(float(v.min()) for v in values.values())
        bins = np.linspace(min(low, 1 - NEAR_ONE[1] + 1), 1 + reach, BINS)
        ax.axvspan(*NEAR_ONE, color="#EFEFEF", zorder=0)
        ax.axvline(1, color=style.GREY, linewidth=0.8)
        for task, found in values.items():
            inside = np.mean((found >= NEAR_ONE[0]) & (found <= NEAR_ONE[1]))
            shown = f"{style.plain(task)}: {100 * inside:.1f}% shaded"
            weights = np.full(len(found), 1 / len(found))
            ax.hist(
                found,
                bins,
                weights=weights,
                histtype="step",
                color=colours[task],
                linewidth=1.4,
                label=shown,
            )
        ax.set_yscale("log")
        ax.set_xlabel(label)
        ax.legend(loc="upper right")
    axes[0].set_ylabel("share of neurons in a bin")
    style.frame(
        figure,
        "How z and the gains that it makes are distributed after training",
        f"{style.plain(about)}. All scaled layers, seeds together, {BINS - 1} bins. Shaded: "
        f"[{NEAR_ONE[0]:g}, {NEAR_ONE[1]:g}], where the paper finds z after training.",
    )
    return figure


@style.styled
def likeness(rows: Sequence[Row], about: str) -> Figure:
    """Draw the cosines of all pairs of trainings, and their means beside chance."""
    pairs = _kind(rows, "pair")
    ends = [((r["task"], r["seed"]), (r["other_task"], r["other_seed"]), r["value"]) for r in pairs]
    names = sorted({name for a, b, _ in ends for name in (a, b)}, key=_order(pairs).index)
    matrix = np.full((len(names), len(names)), np.nan)
    for a, b, value in ends:
        i, j = names.index(a), names.index(b)
        matrix[i, j] = matrix[j, i] = value
    figure = Figure(figsize=(12.5, 3.6 + 0.36 * len(names)))
    left, right = figure.subplots(1, 2, width_ratios=[1.1, 1])
    _matrix(figure, left, matrix, [style.plain(f"{task}, seed {seed}") for task, seed in names])
    _means(right, _kind(rows, "pairs"))
    style.frame(
        figure,
        "How alike the scaling vectors of two trainings are",
        f"{style.plain(about)}. Cosine of z - 1 over all scaled layers but the head's, "
        "queries and keys once where they are equal. Bars: 95% "
        "bootstrap over layers. Chance: neurons permuted inside each layer, which keeps how far "
        "and which way each layer moved; grey lines reach to its 97.5% quantile. p: share of "
        "permutations that reach the value. Same seed: the same order of draws and dropout.",
    )
    return figure


def _order(pairs: Sequence[Row]) -> list[Any]:
    both = [((r["task"], r["seed"]), (r["other_task"], r["other_seed"])) for r in pairs]
    return list(dict.fromkeys([*(a for a, _ in both), *(b for _, b in both)]))


def _matrix(figure: Figure, ax: Axes, matrix: np.ndarray, names: list[str]) -> None:
    reach = max(0.1, float(np.nanmax(np.abs(matrix))))
    image = ax.imshow(matrix, cmap=style.DIVERGING, vmin=-reach, vmax=reach)
    ax.set_xticks(range(len(names)), names, rotation=40, ha="right")
    ax.set_yticks(range(len(names)), names)
    ax.grid(False)
    for (i, j), value in np.ndenumerate(matrix):
        colour = "white" if abs(value) > 0.6 * reach else "black"
        if i != j:
            ax.annotate(f"{value:.2f}", (j, i), ha="center", va="center", size=8, color=colour)
    figure.colorbar(image, ax=ax, label="cosine of z - 1", shrink=0.8)


def _means(ax: Axes, rows: Sequence[Row]) -> None:
    for y, row in enumerate(rows):
        ax.plot([row["chance"], row["chance_high"]], [y + 0.16] * 2, color=style.GREY, linewidth=2)
        ax.plot(
            row["chance"],
            y + 0.16,
            "|",
            color=style.GREY,
            markersize=11,
            label=None if y else "chance",
        )
        ax.plot([row["low"], row["high"]], [y, y], color=style.ORANGE, linewidth=1.4)
        ax.plot(row["value"], y, "D", color=style.ORANGE, label=None if y else "trainings")
        text = f"{row['value']:.3f}, p = {row['p']:.3f}"
        near = row["value"] < max(r["value"] for r in rows) / 2  # to the axis: its labels are left
        side = "left" if near else "right"
        at = (row["value"], y)
        ax.annotate(text, at, (0, 8), textcoords="offset points", size=8.5, ha=side)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_yticks(
        range(len(rows)), [f"{r['of'].replace(', ', chr(10))}\n({r['pairs']} pairs)" for r in rows]
    )
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlabel("mean cosine of z - 1 over pairs")
    ax.legend(loc="lower right")
