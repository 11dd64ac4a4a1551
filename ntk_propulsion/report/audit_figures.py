"""Figures of an audit: each takes one checkpoint's plain results and returns a Figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ntk_propulsion.propulsion.statistics import NEAR_ONE
from ntk_propulsion.report import style, words
from ntk_propulsion.report.depth import depth_axis, role
from ntk_propulsion.report.style import plain

SHADE: dict[str, Any] = {"color": style.AMBER, "alpha": 0.18, "linewidth": 0, "zorder": 0.5}
HOLDS, WEAKLY = 0.1, 0.5  # the rule's limits, as ntk_propulsion.regime has them


def _caption(results: Mapping[str, Any]) -> str:
    said = plain(f"Checkpoint {results['name']}: {results['kind']['words']}.")
    return said[0].upper() + said[1:]


@style.styled
def scaling_vectors(results: dict[str, Any], vectors: Mapping[str, np.ndarray]) -> Figure:
    """Draw z by role, the gains that it makes, and z module by module.

    Args:
        results: The checkpoint's results.
        vectors: Its finite scaling vectors, (d_out,), by module.
    """
    table = [dict(row) for row in results["vectors"]["modules"]]
    roles = {row["module"]: role(row) for row in table}
    looks = style.appearance(roles.values())
    every = np.concatenate(list(vectors.values())).astype(float)
    low, high = NEAR_ONE
    edges = np.linspace(min(low - 0.01, every.min()), max(high + 0.01, every.max()), 61).tolist()
    figure = Figure(figsize=(12, 7.2))
    grid = figure.add_gridspec(2, 2, height_ratios=[1.2, 1])
    left, right, below = (figure.add_subplot(grid[at]) for at in ((0, 0), (0, 1), (1, slice(None))))
    for i, (name, (colour, _)) in enumerate(looks.items()):
        z = np.concatenate([v for module, v in vectors.items() if roles.get(module) == name])
        line = "-" if i < len(style.PALETTE) else "--"
        left.hist(z, edges, histtype="step", color=colour, ls=line, label=plain(name))
    left.axvspan(low, high, label=f"paper: [{low}, {high}]", **SHADE)
    left.set(yscale="log", xlabel="z (no unit; starts at 1)", ylabel="neurons (log scale)")
    left.set_ylim(0.7, 20 * left.get_ylim()[1])
    inside = words.percent(float(((every >= low) & (every <= high)).mean()))
    left.set_title(f"z by role: {inside} of {every.size:,} in the paper's range")
    left.legend(fontsize=8, ncols=3, loc="upper center")
    _gain_panel(right, results, every)
    for i, row in enumerate(table):
        colour, marker = looks[role(row)]
        below.vlines(i, row["min"], row["max"], color=colour, linewidth=1)
        below.vlines(
            i, row["mean"] - row["std"], row["mean"] + row["std"], color=colour, linewidth=4
        )
        below.plot(i, row["mean"], marker, color="white", mec=colour, markersize=4)
    below.axhspan(low, high, **SHADE)
    below.set_ylabel("z: mean, ± std, extremes")
    depth_axis([below], table)
    style.frame(
        figure,
        "Scaling vectors",
        f"{_caption(results)} Shaded: the range that the paper reports after training.",
    )
    return figure


def _gain_panel(ax: Axes, results: Mapping[str, Any], every: np.ndarray) -> None:
    """Draw the gains at the checkpoint's degree, or their ranges at common degrees."""
    low, high = NEAR_ONE
    degree = results["degree"]
    if degree is not None:
        with np.errstate(over="ignore"):
            gain = every**degree
        gain = gain[np.isfinite(gain)]
        if not gain.size:
            ax.set_title(f"every gain at degree {degree} is beyond all numbers")
            return
        ax.hist(gain, 80, color=style.ORANGE)
        ax.axvspan(low**degree, high**degree, label="the same range of z", **SHADE)
        ax.set(yscale="log", xlabel=f"gain $z^{{{degree}}}$ (no unit)", ylabel="neurons (log)")
        ax.set_title(f"gain at degree {degree}: from {gain.min():.3f} to {gain.max():.3f}")
        ax.legend(fontsize=8)
        return
    found = results["vectors"]["by_degree"]
    table = [row for row in found if None not in (row["gain_min"], row["gain_max"])]
    for i, row in enumerate(table):
        ax.vlines(i, row["gain_min"], row["gain_max"], color=style.ORANGE, linewidth=2)
        ax.plot(i, row["gain_mean"], "o", color="white", mec=style.ORANGE)
    ax.set_xticks(range(len(table)), [str(row["degree"]) for row in table])
    ax.set_yscale("symlog", linthresh=1e-2)
    ax.set(xlabel="degree k, if it were", ylabel="gain $z^k$: mean and extremes")
    ax.set_title("degree unknown: what each would make of z")


@style.styled
def similarity(results: dict[str, Any]) -> Figure:
    """Draw the cosines between layers' deviations z - 1, a panel per size of layer."""
    groups = results["vectors"]["similarity"][:4]
    figure = Figure(figsize=(12, 4.6))
    for i, group in enumerate(groups):
        ax = figure.add_subplot(1, len(groups), i + 1)
        cosine = np.array(group["cosine"], dtype=float)
        image = ax.imshow(cosine, cmap=style.DIVERGING, vmin=-1, vmax=1)
        ax.grid(False)
        ax.set(xticks=[], yticks=[])
        ax.set_title(f"{len(cosine)} layers of {group['size']} outputs")
        mean, chance = (words.number(group[key]) for key in ("mean_absolute", "chance"))
        ax.set_xlabel(f"mean absolute cosine {mean};\nunrelated layers {chance}", fontsize=9)
    figure.colorbar(image, ax=figure.axes, shrink=0.7, label="cosine of z - 1 (no unit)")
    style.frame(
        figure, "How alike layers were scaled", f"{_caption(results)} Layers in the file's order."
    )
    return figure


@style.styled
def updates(results: dict[str, Any]) -> Figure:
    """Draw, module by module, the share of its update that a Propulsion explains, and its size."""
    table = [dict(r) for r in results["updates"]["layers"] if r.get("share") is not None]
    looks = style.appearance(role(row) for row in table)
    figure = Figure(figsize=(12, 6.6))
    top, bottom = (figure.add_subplot(2, 1, i) for i in (1, 2))
    for i, row in enumerate(table):
        colour, marker = looks[role(row)]
        top.plot(i, max(row["share"], 1e-9), marker, color=colour, markersize=6)
        bottom.plot(i, row["relative_norm"] or np.nan, marker, color=colour, markersize=6)
        if row.get("share_rank_1") is not None:
            top.plot(i, row["share_rank_1"], "_", color=style.GREY, markersize=9)
    chance = [row["expected_share"] for row in table]
    top.plot(range(len(table)), chance, ":", color="black", linewidth=1, label="chance")
    for name, (colour, marker) in looks.items():
        top.plot([], [], marker, color=colour, linestyle="", label=plain(name))
    if any(row.get("share_rank_1") is not None for row in table):
        top.plot([], [], "_", color=style.GREY, linestyle="", label="closest rank 1")
    smallest = min([*(max(row["share"], 1e-9) for row in table), *chance])
    top.set(yscale="log", ylabel="share of the update explained", ylim=(smallest / 2, 1.5))
    bottom.set(yscale="log", ylabel="relative size |W - W₀| / |W₀|")
    figure.legend(loc="outside right upper")
    depth_axis([top, bottom], table)
    total = results["updates"]["total"] or {}
    style.frame(
        figure,
        "How much of each layer's update is a Propulsion",
        f"{_caption(results)} All layers but the head: {words.percent(total.get('share'))}; a "
        f"random direction per neuron: {words.percent(total.get('expected_share'))}. No units.",
    )
    return figure


@style.styled
def ranks(results: dict[str, Any]) -> Figure:
    """Draw what the closest update of each rank explains, by its parameters, and Propulsion."""
    total = results["updates"]["total"]
    table = total["lora"]
    figure = Figure(figsize=(12, 4.6))
    left, right = (figure.add_subplot(1, 2, i) for i in (1, 2))
    counts = [row["parameters"] for row in table]
    left.plot(
        counts, [row["share"] for row in table], "o-", color=style.GREEN, label="closest LoRA"
    )
    for row in table:
        left.annotate(
            str(row["rank"]),
            (row["parameters"], row["share"]),
            (0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    share = total["share_of_weights"]
    left.plot(total["parameters"], share, "D", color=style.ORANGE, label="Propulsion")
    left.set(xscale="log", ylim=(-0.05, 1.1), xlabel="parameters", ylabel="share of the update")
    left.set_title("by parameters; numbers are ranks")
    left.legend()
    layers = [row for row in results["updates"]["layers"] if row.get("spectrum")]
    looks = style.appearance(role(row) for row in layers)
    for row in layers:
        values = np.asarray(row["spectrum"], dtype=float)
        colour, _ = looks[role(row)]
        positive = np.where(values > 0, values, np.nan)
        right.plot(np.arange(1, len(values) + 1), positive, color=colour, linewidth=0.8, alpha=0.7)
    for name, (colour, _) in looks.items():
        right.plot([], [], color=colour, label=plain(name))
    right.set(xscale="log", yscale="log", xlabel="singular value's number")
    right.set(ylabel="singular value / largest", title="spectrum of each layer's update")
    right.legend(fontsize=8)
    style.frame(
        figure,
        "The closest LoRA of each rank beside Propulsion",
        f"{_caption(results)} Weights of all layers but the head; no units.",
    )
    return figure


@style.styled
def regime(results: dict[str, Any]) -> Figure:
    """Draw the feature drift of each module, and the two measures against the rule's limits."""
    found = results["kernels"]["regime"]
    known = {row["module"]: row["role"] for row in results["kernels"]["per_module"]}
    table = [
        {**row, "role": known.get(row["module"], "other")}
        for row in found["drift_per_module"]
        if row["drift"] is not None
    ]
    looks = style.appearance(role(row) for row in table)
    figure = Figure(figsize=(12, 4.8))
    ax = figure.add_subplot()
    smallest = max(found["drift_floor"] / 10, 1e-9)
    for i, row in enumerate(table):
        colour, marker = looks[role(row)]
        ax.plot(i, max(row["drift"], smallest), marker, color=colour, markersize=5)
    for limit, name in ((HOLDS, "holds below"), (WEAKLY, "weakly below")):
        ax.axhline(limit, color="black", linewidth=0.9, linestyle="--", label=f"{name} {limit:g}")
    for key, colour in (("linearization_error", style.PURPLE), ("feature_drift", style.BLUE)):
        label = f"{key.replace('_', ' ')}, all: {words.number(found[key])}"
        ax.axhline(max(found[key], smallest), color=colour, linewidth=1.8, label=label)
    for name, (colour, marker) in looks.items():
        ax.plot([], [], marker, color=colour, linestyle="", label=plain(name))
    ax.set(yscale="log", ylabel="relative drift |J - J₀| / |J₀|")
    figure.legend(loc="outside right upper")
    depth_axis([ax], table)
    style.frame(
        figure,
        f"Kernel regime: {found['kernel_regime']}",
        f"{_caption(results)} Jacobians by {found['of']}, N = {results['kernels']['examples']} "
        "examples. No units.",
    )
    return figure
