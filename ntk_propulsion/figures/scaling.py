"""The figure of scaling vectors: z by role, the gains that it makes, z module by module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import nn

from ntk_propulsion import words
from ntk_propulsion.figures import style
from ntk_propulsion.figures.depth import depth_axis, spoken
from ntk_propulsion.figures.plot import Plot, Record
from ntk_propulsion.figures.setting import Setting
from ntk_propulsion.figures.style import plain
from ntk_propulsion.propulsion import (
    NEAR_ONE,
    TOTAL,
    ScalingStatistics,
    gains_by_degree,
    scaling_statistics,
    scalings,
)

SHADE: dict[str, Any] = {"color": style.AMBER, "alpha": 0.18, "linewidth": 0, "zorder": 0.5}
LOW, HIGH = NEAR_ONE
WIDE = 10  # gains beyond this ask for a logarithmic axis

Vectors = Mapping[str, np.ndarray] | Mapping[str, torch.Tensor]


@style.styled
def scaling(
    vectors: nn.Module | Vectors,
    degree: int | None = None,
    *,
    title: str = "Propulsion's scaling vectors",
    setting: Setting | str = "",
) -> Plot:
    """Draw z by role, the gains z**k that it makes, and z module by module.

    Args:
        vectors: A model with scaling layers, or its vectors z (d_out,) by module.
        degree: The power k, for vectors alone; without it, the range of gains at each degree that
            the paper and its code use is drawn.
        title: What the figure shows.
        setting: What the caption says that they are of.

    Raises:
        InputError: There is no scaling vector, or one is not finite.
    """
    if isinstance(vectors, nn.Module):
        layers = scalings(vectors)
        degree = degree or next((layer.degree for layer in layers.values()), None)
        vectors = {name: layer.pooled() for name, layer in layers.items()}
    z = {name: torch.as_tensor(v).detach().cpu().double() for name, v in vectors.items()}
    *table, _ = scaling_statistics(z, degree)
    every = np.concatenate([v.numpy() for v in z.values()])
    figure = Plot(figsize=(12, 7.2))
    grid = figure.add_gridspec(2, 2, height_ratios=[1.2, 1])
    left, right, below = (figure.add_subplot(grid[at]) for at in ((0, 0), (0, 1), (1, slice(None))))
    figure.rows = [
        *_by_role(left, table, {name: v.numpy() for name, v in z.items()}, every),
        *(_gains_by_degree(right, z) if degree is None else _gains(right, every, degree)),
        *_by_module(below, table),
    ]
    style.frame(
        figure, title, f"{plain(setting)} Shaded: the range that the paper reports after training."
    )
    return figure


def _by_role(
    ax: Axes,
    table: Sequence[ScalingStatistics],
    vectors: Mapping[str, np.ndarray],
    every: np.ndarray,
) -> list[Record]:
    """Draw how often each z occurs in the modules of each role; return the bars."""
    edges = np.linspace(min(LOW - 0.01, every.min()), max(HIGH + 0.01, every.max()), 61)
    bars: list[Record] = []
    for role, (colour, _) in style.role_looks(row.role for row in table).items():
        z = np.concatenate([vectors[row.module] for row in table if row.role == role])
        counts, *_ = ax.hist(
            z, edges.tolist(), histtype="step", label=spoken(role), color=colour, linestyle="-"
        )
        bars += _bars("z by role", counts, edges, role=role)
    ax.axvspan(LOW, HIGH, label=f"paper: [{LOW}, {HIGH}]", **SHADE)
    ax.set(yscale="log", xlabel="z (no unit; starts at 1)", ylabel="neurons (log scale)")
    ax.set_ylim(0.7, 20 * ax.get_ylim()[1])
    inside = words.percent(float(((every >= LOW) & (every <= HIGH)).mean()))
    ax.set_title(f"z by role: {inside} of {every.size:,} in the paper's range")
    ax.legend(fontsize=8, ncols=3, loc="upper center")
    return bars


def _gains(ax: Axes, every: np.ndarray, degree: int) -> list[Record]:
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
    ax.set_ylim(0.7, 4 * ax.get_ylim()[1])
    ax.set_title(f"gain at degree {degree}: from {gain.min():.3f} to {gain.max():.3f}")
    ax.legend(fontsize=8)
    return _bars("gain", counts, edges, degree=degree)


def _gains_by_degree(ax: Axes, vectors: Mapping[str, torch.Tensor]) -> list[Record]:
    """Draw the gains' range if the degree were each of the common ones; return what was drawn."""
    gains = [each.gain for each in gains_by_degree(vectors) if each.module == TOTAL]
    table = [gain for gain in gains if np.isfinite([gain.min, gain.mean, gain.max]).all()]
    for i, gain in enumerate(table):
        ax.vlines(i, gain.min, gain.max, color=style.ORANGE, linewidth=2)
        ax.plot(i, gain.mean, "o", color="white", mec=style.ORANGE)
    ax.set_xticks(range(len(table)), [str(gain.degree) for gain in table])
    if any(gain.min < 0 or gain.max > WIDE for gain in table):
        ax.set_yscale("symlog", linthresh=1e-2)
    ax.set(xlabel="degree k, if it were", ylabel="gain $z^k$: mean and extremes")
    ax.set_title("degree unknown: what each would make of z")
    return [
        {
            "panel": "gain by degree",
            "degree": gain.degree,
            "gain_mean": gain.mean,
            "gain_min": gain.min,
            "gain_max": gain.max,
        }
        for gain in table
    ]


def _by_module(ax: Axes, table: Sequence[ScalingStatistics]) -> list[Record]:
    """Draw mean, deviation and extremes of each module's z; return them."""
    looks = style.role_looks(row.role for row in table)
    for i, row in enumerate(table):
        colour, marker = looks[row.role]
        ax.vlines(i, row.min, row.max, color=colour, linewidth=1)
        ax.vlines(i, row.mean - row.std, row.mean + row.std, color=colour, linewidth=4)
        ax.plot(i, row.mean, marker, color="white", mec=colour, markersize=4)
    ax.axhspan(LOW, HIGH, **SHADE)
    ax.set_ylabel("z: mean, ± std, extremes")
    depth_axis([ax], table)
    kept = ("module", "mean", "std", "min", "max")
    return [{"panel": "z by module", **{key: getattr(row, key) for key in kept}} for row in table]


def _bars(panel: str, counts: Any, edges: np.ndarray, **of: Any) -> list[Record]:
    return [
        {"panel": panel, **of, "from": float(low), "to": float(high), "neurons": int(count)}
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]
