"""Figures of the study of Theorem 1: distances by tuning, error budget, heat maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from analysis.framework.options import Tuned
from analysis.framework.tables import Row
from ntk_propulsion import words
from ntk_propulsion.figures import style
from ntk_propulsion.theory.error_budget import STEPS

SUBSET = "random_subset"


def draw(rows: Sequence[Row], tasks: Sequence[str], settings: Tuned) -> Mapping[str, Figure]:
    """Return every figure of the study by file name."""
    found = {
        "figure": tunings(rows, tasks, settings),
        "budget": budget(rows, tasks, settings),
    }
    arrays = {row["name"]: np.asarray(row["array"], float) for row in rows if "array" in row}
    for part in ("all", "without_head"):
        found[f"heatmaps_{part}"] = heatmaps(arrays, tasks, settings, part)
    return found


def setting(tasks: Sequence[str], settings: Tuned) -> str:
    """Say what the figures show."""
    return (
        f"{settings.model}, N = {settings.examples} examples a task, {settings.outputs}, "
        f"{settings.head} head, degree {settings.degree}."
    )


@style.styled
def tunings(rows: Sequence[Row], tasks: Sequence[str], settings: Tuned) -> Figure:
    """Draw unbiased CKA and best-scale error of every tuning's kernel with K_F, by task."""
    figure = Figure(figsize=(12, 7.2))
    axes = figure.subplots(2, 2, sharey="col")
    looks = style.appearance(tasks)
    for line, part in zip(axes, ("all", "without_head"), strict=True):
        for ax, distance in zip(line, ("unbiased_cka", "best_scale_error"), strict=True):
            names = _tunings(rows)
            for offset, task in enumerate(tasks):
                colour, marker = looks[task]
                for place, name in enumerate(names):
                    values = _values(rows, task, part, name, distance)
                    x = place + (offset - (len(tasks) - 1) / 2) * 0.11
                    for value, low, high in values:
                        ax.plot([x, x], [low, high], color=colour, alpha=0.35, linewidth=1)
                        ax.plot(x, value, marker, color=colour, markersize=4.5)
            ax.set_xticks(range(len(names)), [words.tuning(n) for n in names], rotation=25)
            for label in ax.get_xticklabels():
                label.set_horizontalalignment("right")
            better = "higher is nearer" if distance == "unbiased_cka" else "lower is nearer"
            ax.set_ylabel(f"{words.metric_label(distance)}\nwith $K_F$ ({better})")
            ax.set_title(words.PARTS[part])
    handles = [
        axes[0, 0].plot([], [], marker, color=colour, label=task)[0]
        for task, (colour, marker) in looks.items()
    ]
    figure.legend(handles=handles, loc="outside right upper")
    style.frame(
        figure,
        "How near each tuning's kernel is to full fine-tuning's, before training",
        f"{setting(tasks, settings)} Bars: 95% bootstrap over examples. "
        "random subset: as many parameters as Propulsion, drawn anew several times.",
    )
    return figure


def _tunings(rows: Sequence[Row]) -> list[str]:
    names = [r["tuning"] for r in rows if r.get("kind") == "distance" and r["point"] == "theta0"]
    return list(dict.fromkeys(SUBSET if n.startswith(SUBSET) else n for n in names))


def _values(
    rows: Sequence[Row], task: str, part: str, tuning: str, distance: str
) -> list[tuple[float, float, float]]:
    found = [
        r
        for r in rows
        if r.get("kind") == "distance"
        and (r["task"], r["part"], r["point"], r["distance"]) == (task, part, "theta0", distance)
        and (r["tuning"] == tuning or (tuning == SUBSET and r["tuning"].startswith(SUBSET)))
    ]
    return [
        (r["value"], *(r["value"] if r[end] is None else r[end] for end in ("low", "high")))
        for r in found
    ]


@style.styled
def budget(rows: Sequence[Row], tasks: Sequence[str], settings: Tuned) -> Figure:
    """Draw the angles of the steps from K_F to K_P as a waterfall by task, and of the whole.

    Each step's bar begins where the one before ended; angles obey the triangle inequality, so the
    last one ends at or above the total.
    """
    figure = Figure(figsize=(12, 4.6))
    axes = figure.subplots(1, 2, sharey=True)
    looks = style.appearance(tasks)
    steps = (*STEPS, "total", "chance")
    for ax, part in zip(axes, ("all", "without_head"), strict=True):
        for offset, task in enumerate(tasks):
            colour, reached = looks[task][0], 0.0
            for place, step in enumerate(steps):
                row = _budget_row(rows, task, part, step)
                if row is None:
                    continue
                x = place + (offset - (len(tasks) - 1) / 2) * 0.12
                value = float(np.degrees(row["value"]))
                foot = reached if step in STEPS else 0.0
                shown = task if place == 0 else None
                ax.bar(x, value, 0.11, bottom=foot, color=colour, label=shown)
                if row.get("low") is not None:
                    ends = foot + np.degrees([row["low"], row["high"]])
                    ax.plot([x, x], ends, color="black", linewidth=0.8)
                if step in STEPS:
                    reached += value
                    ax.plot([x, x + 1], [reached, reached], ":", color=colour, linewidth=0.8)
        ax.set_xticks(range(len(steps)), steps)
        ax.set_title(words.PARTS[part])
    axes[0].set_ylabel("angle arccos(alignment), degrees, added up")
    axes[1].legend(loc="upper left", ncols=2)
    style.frame(
        figure,
        "Theorem 1 taken apart: how far each step from $K_F$ to $K_P$ turns the kernel",
        f"{setting(tasks, settings)} coverage: only the scaled layers; weighting: by the size of "
        "their weights; sampling: one Gaussian probe per neuron; training: the weights as they "
        "are; chance: one redraw from another. 0° is the same shape, 90° nothing in common. Each "
        "step stands on those before it; the total is at most their sum (triangle inequality).",
    )
    return figure


def _budget_row(rows: Sequence[Row], task: str, part: str, step: str) -> Row | None:
    return next(
        (
            r
            for r in rows
            if r.get("kind") == "budget"
            and (r["task"], r["part"], r["step"], r["distance"]) == (task, part, step, "angle")
        ),
        None,
    )


@style.styled
def heatmaps(
    arrays: Mapping[str, np.ndarray], tasks: Sequence[str], settings: Tuned, part: str
) -> Figure:
    """Draw K_F, K_P best-scaled, their difference, and the raw difference, a task a row."""
    figure = Figure(figsize=(11.5, 2.7 * len(tasks) + 1))
    axes = figure.subplots(len(tasks), 4, squeeze=False)
    for line, task in zip(axes, tasks, strict=True):
        full, other = (arrays[f"{task}/theta0/{name}/{part}"] for name in ("full", "propulsion"))
        scale = float((full * other).sum() / (other * other).sum())
        limit = float(np.percentile(np.abs(full), 99)) or 1.0
        signed = {"cmap": style.DIVERGING, "vmin": -limit, "vmax": limit}
        for ax, image in zip(line, (full, scale * other, full - scale * other), strict=False):
            shown = ax.imshow(image, **signed)
        raw = line[3].imshow(np.abs(full - other), cmap=style.SEQUENTIAL, vmin=0)
        figure.colorbar(shown, ax=line[2], shrink=0.85)
        figure.colorbar(raw, ax=line[3], shrink=0.85)
        line[0].set_ylabel(f"{task}\nexample, by label")
        line[1].set_xlabel(f"$s$ = {scale:.2g}")
        for ax in line:
            ax.set_xticks([])
            ax.set_yticks([])
            ax.grid(visible=False)
    titles = ("$K_F$", "$s\\,K_P$ (best scale $s$)", "$K_F - s\\,K_P$", "$|K_F - K_P|$, raw")
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title)
    style.frame(
        figure,
        f"Kernels of full fine-tuning and Propulsion before training, {words.PARTS[part]}",
        f"{setting(tasks, settings)} A pixel is a pair of examples, summed over equal outputs. "
        "The first three columns of a task share the scale of the third.",
    )
    return figure
