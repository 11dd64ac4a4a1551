"""The figure of domain shift: accuracies, excess drops and kernel distances by target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.fixtures.drops import Predictor, estimates, leading, trained
from analysis.framework.tables import Row, where
from ntk_propulsion import words
from ntk_propulsion.figures import style

Place = tuple[str, str]
Look = tuple[str, str, str, bool]  # label, colour, marker, filled


def _looks(control: str) -> dict[Predictor, Look]:
    kernel = {"full": "$K_F$", "propulsion": "$K_P$", control: words.tuning(control)}
    kernel["random_subset"] = words.tuning("random_subset")
    known = style.tuning_looks(kernel)
    looks = {
        leading(name): (f"regression, {text}", *known[name], True) for name, text in kernel.items()
    }
    looks |= {
        trained(name): (f"trained, {words.tuning(name)}", *known[name], False)
        for name in ("full", "propulsion")
    }
    start = ("probe before training", "black", "|", True)
    return looks | {Predictor("start"): start}


@style.styled
def draw(rows: Sequence[Row], control: str, margin: float, about: str) -> Figure:
    """Draw what each source's kernels and models do on each target, a line for each.

    Args:
        rows: The study's table.
        control: The tuning beside Propulsion and the random subset.
        margin: Of the rule, in accuracy.
        about: What the numbers rest on.
    """
    places = list(dict.fromkeys((row["source"], row["target"]) for row in rows))
    figure = Figure(figsize=(13, 2.6 + 0.62 * len(places)))
    axes = figure.subplots(1, 3, sharey=True, width_ratios=[1.5, 1.2, 1])
    looks = _looks(control)
    _estimates(axes[0], rows, "accuracy", places, looks)
    excess = {p: look for p, look in looks.items() if p.reference != p and p.tuning}
    axes[1].axvspan(-margin, margin, color="#EFEFEF", zorder=0)
    axes[1].axvline(0, color=style.GREY, linewidth=0.8)
    _estimates(axes[1], rows, "excess_drop", places, excess)
    _distances(axes[2], rows, places, {name: looks[leading(name)] for name in _compared(control)})
    axes[0].set_xlabel("accuracy")
    axes[1].set_xlabel(f"drop minus full's drop (band: ±{margin:g})")
    axes[2].set_xlabel("best-scale error to $K_F$, without head")
    axes[0].set_yticks(range(len(places)), [_named(place) for place in places])
    axes[0].set_ylim(len(places) - 0.5, -0.5)
    for ax in axes:
        for y in range(1, len(places)):
            new = places[y][0] != places[y - 1][0]
            ax.axhline(y - 0.5, color="black" if new else "#DDDDDD", linewidth=0.8)
        ax.grid(axis="y", visible=False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper")
    style.frame(
        figure,
        "Domain shift: kernels, their regressions and trained models away from their source",
        f"{style.plain(about)}. Left and middle: all seeds, lines 95% bootstrap over texts; a drop "
        "is accuracy at home minus accuracy here. Right: each seed, 95% bootstrap over examples.",
    )
    return figure


def _compared(control: str) -> tuple[str, ...]:
    return "propulsion", control, "random_subset"


def _named(place: Place) -> str:
    source, target = map(style.plain, place)
    return f"{source}\n(home)" if source == target else f"{source}\nto {target}"


def _estimates(
    ax: Axes,
    rows: Sequence[Row],
    quantity: str,
    places: Sequence[Place],
    looks: Mapping[Predictor, Look],
) -> None:
    for shift, (predictor, look) in zip(_spread(len(looks)), looks.items(), strict=True):
        found = estimates(rows, quantity, predictor)
        lines = [(places.index(p) + shift, e.value, e.low, e.high) for p, e in found.items()]
        _bars(ax, lines, look)


def _distances(
    ax: Axes, rows: Sequence[Row], places: Sequence[Place], looks: Mapping[str, Look]
) -> None:
    for shift, (tuning, look) in zip(_spread(len(looks)), looks.items(), strict=True):
        found = where(rows, quantity="best_scale_error", tuning=tuning, part="without_head")
        of = sorted({row["seed"] for row in found})
        nudge = dict(zip(of, _spread(len(of), 0.16), strict=True))
        lines = [
            (
                places.index((row["source"], row["target"])) + shift + nudge[row["seed"]],
                row["value"],
                row["low"],
                row["high"],
            )
            for row in found
        ]
        _bars(ax, lines, look)
    ax.set_xlim(left=0)


def _bars(
    ax: Axes, lines: Sequence[tuple[float, float, float | None, float | None]], look: Look
) -> None:
    label, colour, marker, filled = look
    for y, _, low, high in lines:
        if low is not None and high is not None:
            ax.plot([low, high], [y, y], color=colour, linewidth=1, alpha=0.6)
    face = colour if filled else "white"
    at = [line[1] for line in lines], [line[0] for line in lines]
    ax.plot(*at, marker, color=colour, mfc=face, markersize=5, label=label)


def _spread(n: int, width: float = 0.7) -> np.ndarray:
    """Return n offsets about 0, so that what shares a line does not overlap."""
    return (np.arange(n) - (n - 1) / 2) * width / max(1, n)
