"""Panels of scaling vectors, which a run and an audit share: z by role, its gains, by module."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ntk_propulsion import words
from ntk_propulsion.figures import style
from ntk_propulsion.figures.before.depth import depth_axis, role
from ntk_propulsion.figures.before.plot import Plot
from ntk_propulsion.figures.style import plain
from ntk_propulsion.propulsion import NEAR_ONE

SHADE: dict[str, Any] = {"color": style.AMBER, "alpha": 0.18, "linewidth": 0, "zorder": 0.5}
LOW, HIGH = NEAR_ONE


def scaling_figure(
    table: Sequence[dict[str, Any]],
    vectors: Mapping[str, np.ndarray],
    gain: Callable[[Axes, np.ndarray], list[dict[str, Any]]],
) -> Plot:
    """Draw z by role, what ``gain`` draws of it, and z module by module.

    Args:
        table: A row of statistics per module, with its role.
        vectors: ``{module: z (d_out,)}``, all finite.
        gain: Draws the gains of every z into axes and returns the rows that it drew.
    """
    every = np.concatenate([np.ravel(z) for z in vectors.values()]).astype(float)
    looks = style.appearance(map(role, table))
    figure = Plot(figsize=(12, 7.2))
    grid = figure.add_gridspec(2, 2, height_ratios=[1.2, 1])
    left, right, below = (figure.add_subplot(grid[at]) for at in ((0, 0), (0, 1), (1, slice(None))))
    figure.rows = [
        *_by_role(left, {row["module"]: role(row) for row in table}, vectors, every, looks),
        *gain(right, every),
        *_by_module(below, table, looks),
    ]
    return figure


def gain_histogram(ax: Axes, every: np.ndarray, degree: int) -> list[dict[str, Any]]:
    """Draw how often each gain z**k occurs; return the bars."""
    with np.errstate(over="ignore"):
        gain = every**degree
    gain = gain[np.isfinite(gain)]
    if not gain.size:
        ax.set_title(f"every gain at degree {degree} is beyond all numbers")
        return []
    ends = [LOW**degree, HIGH**degree]
    counts, edges, _ = ax.hist(gain, 80, color=style.ORANGE)
    ax.axvspan(*ends, label=f"the same range: [{ends[0]:.3f}, {ends[1]:.3f}]", **SHADE)
    ax.set(yscale="log", xlabel=f"gain $z^{{{degree}}}$ (no unit)", ylabel="neurons (log scale)")
    ax.set_title(f"gain at degree {degree}: from {gain.min():.3f} to {gain.max():.3f}")
    ax.legend(fontsize=8)
    return _bars("gain", counts, edges, degree=degree)


def _by_role(
    ax: Axes,
    roles: Mapping[str, str],
    vectors: Mapping[str, np.ndarray],
    every: np.ndarray,
    looks: Mapping[str, tuple[str, str]],
) -> list[dict[str, Any]]:
    edges = np.linspace(min(LOW - 0.01, every.min()), max(HIGH + 0.01, every.max()), 61)
    bars: list[dict[str, Any]] = []
    for i, (name, (colour, _)) in enumerate(looks.items()):
        z = [np.ravel(v) for module, v in vectors.items() if roles.get(module) == name]
        if not z:
            continue
        look: dict[str, Any] = {"color": colour, "ls": "-" if i < len(style.PALETTE) else "--"}
        counts, *_ = ax.hist(
            np.concatenate(z), edges.tolist(), histtype="step", label=plain(name), **look
        )
        bars += _bars("z by role", counts, edges, role=name)
    ax.axvspan(LOW, HIGH, label=f"paper: [{LOW}, {HIGH}]", **SHADE)
    ax.set(yscale="log", xlabel="z (no unit; starts at 1)", ylabel="neurons (log scale)")
    ax.set_ylim(0.7, 20 * ax.get_ylim()[1])
    inside = words.percent(float(((every >= LOW) & (every <= HIGH)).mean()))
    ax.set_title(f"z by role: {inside} of {every.size:,} in the paper's range")
    ax.legend(fontsize=8, ncols=3, loc="upper center")
    return bars


def _by_module(
    ax: Axes, table: Sequence[dict[str, Any]], looks: Mapping[str, tuple[str, str]]
) -> list[dict[str, Any]]:
    for i, row in enumerate(table):
        colour, marker = looks[role(row)]
        ax.vlines(i, row["min"], row["max"], color=colour, linewidth=1)
        ax.vlines(i, row["mean"] - row["std"], row["mean"] + row["std"], color=colour, linewidth=4)
        ax.plot(i, row["mean"], marker, color="white", mec=colour, markersize=4)
    ax.axhspan(LOW, HIGH, **SHADE)
    ax.set_ylabel("z: mean, ± std, extremes")
    depth_axis([ax], list(table))
    kept = ("module", "mean", "std", "min", "max")
    return [{"panel": "z by module", **{key: row[key] for key in kept}} for row in table]


def _bars(panel: str, counts: Any, edges: np.ndarray, **of: Any) -> list[dict[str, Any]]:
    return [
        {"panel": panel, **of, "from": float(low), "to": float(high), "neurons": int(count)}
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]
