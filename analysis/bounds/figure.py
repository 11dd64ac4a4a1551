"""The figure of the bounds: failures by width, Gamma2 by layer, failures by layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.framework.tables import Row
from ntk_propulsion.figures import style
from ntk_propulsion.figures.depth import Place, depth_axis

GAUSSIAN, PRETRAINED, PRINTED, OWN, TRAINED = "T2a", "T2b", "T2c", "T2d", "T2e"
ENERGIES = "energies"
SHOWN = 0.4  # the layers are shown at the eps next to this
PALE = "#BBBBBB"  # of what is vacuous
_handle = partial(Line2D, [], [])


@style.styled
def figure(rows: Sequence[Row], widths: str, layers: str) -> Figure:
    """Draw the study's table.

    Args:
        rows: The table.
        widths: What the Gaussian weights are, in words.
        layers: What the layers are of.
    """
    drawn = Figure(figsize=(13, 7.4))
    grid = drawn.add_gridspec(2, 2, width_ratios=[1, 1.5], height_ratios=[1, 1.15])
    _draw_widths(drawn.add_subplot(grid[:, 0]), _of(rows, part=GAUSSIAN))
    first = _of(rows, seed=0)
    energies = _of(first, part=ENERGIES)
    cells = [row for row in first if row["part"] in (PRINTED, OWN, TRAINED)]
    panels = [drawn.add_subplot(grid[i, 1]) for i in range(2)]
    _draw_energies(panels[0], energies)
    _draw_failures(panels[1], cells, [row["layer"] for row in energies])
    depth_axis(panels, [Place(row["layer"], row["role"]) for row in energies])
    style.frame(
        drawn,
        "Johnson-Lindenstrauss for Gaussian weights, and for Propulsion's own projection",
        f"Left: {widths}; a line for each x'y, shares of 0 are left out. Right: {layers}; redraws: "
        "Gaussian weights at each layer's real inputs and cotangents; pretrained: the weights as "
        "they are. Errors are relative to the mean over redraws. Grey: a bound of 1 or more says "
        "nothing (vacuous).",
    )
    return drawn


def _of(rows: Sequence[Row], **wanted: Any) -> list[Row]:
    return [row for row in rows if all(row.get(k) == value for k, value in wanted.items())]


def _draw_widths(ax: Axes, cells: Sequence[Row]) -> None:
    """Draw a line for each eps and cosine, and the bound of each eps, named at its left end."""
    widths = sorted({row["width"] for row in cells})
    levels = dict.fromkeys(row["eps"] for row in cells)
    for eps, (colour, marker) in zip(
        levels, style.appearance(map(str, levels)).values(), strict=True
    ):
        of_eps = _of(cells, eps=eps)
        for cosine in dict.fromkeys(row["cosine"] for row in of_eps):
            seen = [row for row in _of(of_eps, cosine=cosine) if row["observed"] > 0]
            _line(ax, seen, "observed", marker=marker, color=colour, alpha=0.7)
        bounds = _of(of_eps, cosine=of_eps[0]["cosine"])
        said = _of(bounds, vacuous=False)
        _line(ax, said, "bound", marker="x", markersize=4, linestyle="--", color=colour)
        empty = [row["width"] for row in bounds if row["vacuous"]]
        ax.plot(empty, [1.6] * len(empty), marker, color=PALE, mfc="white", markersize=5)
        left = [row["observed"] for row in _of(of_eps, width=widths[0]) if row["observed"] > 0]
        if left:
            place = (0.9 * widths[0], math.prod(left) ** (1 / len(left)))
            ax.annotate(f"eps {eps:g}", place, color=colour, ha="right", va="center", fontsize=8.5)
    ax.axhline(1, color=style.GREY, linewidth=0.8)
    ax.set(xscale="log", yscale="log", xlabel="width d", ylabel="share of draws outside eps")
    ax.set_xlim(0.36 * widths[0], 1.25 * widths[-1])
    ax.set_ylim(0.3 / cells[0]["trials"], 3)
    ax.set_xticks(widths, [str(width) for width in widths])
    ax.minorticks_off()
    handles = [
        _handle(color="black", marker="o", label="Gaussian weights"),
        _handle(color="black", marker="x", linestyle="--", label="printed bound"),
        _handle(color=PALE, marker="o", mfc="white", linestyle="", label="it is vacuous"),
    ]
    ax.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.42, 1.0), ncols=3)


def _line(ax: Axes, rows: Sequence[Row], column: str, **look: Any) -> None:
    ax.plot([row["width"] for row in rows], [row[column] for row in rows], **look)


def _draw_energies(ax: Axes, layers: Sequence[Row]) -> None:
    looks = style.role_looks(row["role"] for row in layers)
    for i, row in enumerate(layers):
        colour, marker = looks[row["role"]]
        ax.plot([i, i], [row["gamma2_min"], row["gamma2_max"]], color=colour, linewidth=1)
        ax.plot(i, row["gamma2"], marker, color=colour, markersize=5)
        ax.plot([i - 0.45, i + 0.45], [row["width"]] * 2, color="black", linewidth=1.3)
    handles = [
        _handle(color=colour, marker=marker, linestyle="", label=role.replace("_", " "))
        for role, (colour, marker) in looks.items()
    ]
    handles.append(_handle(color="black", label="$d_{out}$"))
    ax.set_yscale("log")
    ax.set_ylabel("neurons")
    ax.set_title(r"Effective neurons $\Gamma_2$: median and range over rows, against $d_{out}$")
    ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1, 0.5))


def _draw_failures(ax: Axes, cells: Sequence[Row], layers: Sequence[str]) -> None:
    """Draw observed shares as dots and bounds as bars, at one eps; the least lie at the bottom."""
    eps = min((row["eps"] for row in cells), key=lambda eps: abs(eps - SHOWN))
    cells = _of(cells, eps=eps)
    redraws = max(row["trials"] for row in _of(cells, part=PRINTED))
    place = {layer: i for i, layer in enumerate(layers)}
    floor = 0.4 / redraws
    for part, colour in ((PRINTED, style.GREEN), (OWN, style.PURPLE)):
        for row in _of(cells, part=part):
            shade, dash = (PALE, ":") if row["vacuous"] else (colour, "-")
            x, y = place[row["layer"]], min(1.0, max(floor, row["bound"]))
            ax.plot([x - 0.45, x + 0.45], [y, y], dash, color=shade, linewidth=2)
    for part, colour, marker, face in (
        (PRINTED, style.BLUE, "o", "white"),
        (TRAINED, style.ORANGE, "s", style.ORANGE),
    ):
        for row in _of(cells, part=part):
            y = max(floor, row["observed"])
            ax.plot(place[row["layer"]], y, marker, color=colour, mfc=face, markersize=5)
    ax.set_yscale("log")
    ax.set_ylim(floor / 1.5, 1.6)
    ax.set_ylabel("share")
    ax.set_title(f"Share of diagonal entries of $K_P$ wrong by more than eps = {eps:g}")
    handles = [
        _handle(color=style.GREEN, linewidth=2, label="printed bound, $d = d_{out}$"),
        _handle(color=style.PURPLE, linewidth=2, label=r"bound with $\Gamma_2$"),
        _handle(color=PALE, linewidth=2, linestyle=":", label="vacuous"),
        _handle(color=style.BLUE, marker="o", mfc="white", linestyle="", label="redraws"),
        _handle(color=style.ORANGE, marker="s", linestyle="", label="pretrained"),
        _handle(linestyle="", label=f"bottom: less than\n1 in {redraws:,}"),
    ]
    ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1, 0.5))
