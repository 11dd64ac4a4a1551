"""The figure of costs: a panel for each quantity, a line for each method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.framework.tables import Row
from ntk_propulsion import words
from ntk_propulsion.figures import style

MB = 1e6
Looks = dict[str, tuple[str, str]]


@dataclass(frozen=True)
class Panel:
    """One quantity.

    Attributes:
        quantity: Of the summary's rows.
        label: Of the axis, with the unit.
        unit: What a value is divided by.
        log: Whether the axis is.
        beside: Another quantity, drawn hollow, and its name.
    """

    quantity: str
    label: str
    unit: float = 1
    log: bool = False
    beside: tuple[str, str] = ("", "")


PANELS = (
    Panel("parameters", "numbers trained", log=True),
    Panel("state_bytes", "AdamW's state, MB", MB, log=True),
    Panel("peak_bytes", "peak memory, MB", MB, beside=("rise_bytes", "without the weights")),
    Panel("step_seconds", "seconds a step", beside=("forward_seconds", "forward only")),
    Panel("step_joules", "joules a step"),
)


@style.styled
def draw(rows: Sequence[Row], methods: Sequence[str], about: str) -> Figure:
    """Draw medians of all rounds with their whole range, and each training's way to the target.

    Args:
        rows: The study's table.
        methods: From above to below.
        about: What the numbers rest on.
    """
    summary = [row for row in rows if row["kind"] == "summary"]
    panels = [p for p in PANELS if any(row["quantity"] == p.quantity for row in summary)]
    figure = Figure(figsize=(15, 2.6 + 0.34 * len(methods)))
    axes = figure.subplots(1, len(panels) + 1, sharey=True)
    looks = style.tuning_looks(methods)
    for ax, panel in zip(axes, panels, strict=False):
        _ranges(ax, panel, summary, methods, looks)
    race = _race(axes[-1], rows, methods, looks)
    axes[0].set_yticks(range(len(methods)), [words.tuning(name) for name in methods])
    axes[0].set_ylim(len(methods) - 0.5, -0.5)
    hardware = next((row for row in rows if row["kind"] == "hardware"), {})
    style.frame(
        figure,
        f"What training costs, by method, on {style.plain(hardware.get('name', 'unknown'))}",
        f"{style.plain(about)}. Marks: median over rounds, lines: least to greatest. Peak memory: "
        "the model's weights with what training adds to the loaded model, each method in a process "
        "of its own. RowColumn trains whole weights under a mask, which saves no memory. "
        f"{race} Energy {style.plain(hardware.get('energy', 'not measured'))}.",
    )
    return figure


def _ranges(
    ax: Axes,
    panel: Panel,
    summary: Sequence[Row],
    methods: Sequence[str],
    looks: Looks,
) -> None:
    for quantity, hollow in ((panel.quantity, False), (panel.beside[0], True)):
        for row in summary:
            if row["quantity"] != quantity:
                continue
            y, (colour, marker) = methods.index(row["method"]), looks[row["method"]]
            ends = [row["low"] / panel.unit, row["high"] / panel.unit]
            ax.plot(ends, [y, y], color=colour, linewidth=2, alpha=0.6)
            face = "white" if hollow else colour
            ax.plot(row["value"] / panel.unit, y, marker, color=colour, mfc=face, markersize=6)
    ax.set_xlabel(panel.label + (f"\n(hollow: {panel.beside[1]})" if panel.beside[0] else ""))
    if panel.log:
        ax.set_xscale("log")
    else:
        ax.set_xlim(left=0)


def _race(ax: Axes, rows: Sequence[Row], methods: Sequence[str], looks: Looks) -> str:
    """Draw seconds to the target, a mark for each seed; return what it is in words."""
    found = [row for row in rows if row["kind"] == "target"]
    ax.set_xlabel("seconds to the target\n(steps beside the mark)")
    for row in found:
        y, (colour, marker) = methods.index(row["method"]), looks[row["method"]]
        if row["seconds"] is not None:
            ax.plot(row["seconds"], y, marker, color=colour, markersize=6)
            at = (row["seconds"], y)
            ax.annotate(f"{row['steps']}", at, (6, 4), textcoords="offset points", size=8)
    for y, name in enumerate(methods):
        own = [row for row in found if row["method"] == name]
        missed = sum(row["seconds"] is None for row in own)
        if missed:
            of = f" by {missed} of {len(own)}" if len(own) > 1 else ""
            ax.annotate(
                f"not reached{of}",
                (0.02, y + 0.33),
                xycoords=("axes fraction", "data"),
                size=8,
                color=style.GREY,
            )
    ax.set_xlim(left=0)
    if not found:
        return "There is no target: full fine-tuning got no better than its start."
    values = ", ".join(f"{row['value']:.3g}" for row in found if row["method"] == methods[0])
    most = max(row["steps"] for row in rows if row["kind"] == "race")
    metric = next(row["metric"] for row in rows if row["kind"] == "race")
    return (
        f"Target: test {metric} {values}, evaluations not timed, {most} steps at most, one mark "
        "for each seed."
    )
