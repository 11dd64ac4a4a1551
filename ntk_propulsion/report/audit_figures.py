"""Figures of an audit: each takes one checkpoint's plain results and returns a Figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ntk_propulsion import words
from ntk_propulsion.figures import style
from ntk_propulsion.figures.before.depth import depth_axis, role
from ntk_propulsion.figures.before.plot import Plot, chosen
from ntk_propulsion.figures.before.scaling import gain_histogram, scaling_figure
from ntk_propulsion.figures.style import plain

HOLDS, WEAKLY = 0.1, 0.5  # the rule's limits, as ntk_propulsion.measurements.regime has them


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
    degree = results["degree"]

    def gain(ax: Axes, every: np.ndarray) -> list[dict[str, Any]]:
        if degree is not None:
            return gain_histogram(ax, every, degree)
        return _gains_by_degree(ax, results["vectors"]["by_degree"])

    figure = scaling_figure(table, vectors, gain)
    style.frame(
        figure,
        "Scaling vectors",
        f"{_caption(results)} Shaded: the range that the paper reports after training.",
    )
    return figure


def _gains_by_degree(ax: Axes, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Draw the gains' range if the degree were each of the common ones; return the rows."""
    table = [row for row in found if None not in (row["gain_min"], row["gain_max"])]
    for i, row in enumerate(table):
        ax.vlines(i, row["gain_min"], row["gain_max"], color=style.ORANGE, linewidth=2)
        ax.plot(i, row["gain_mean"], "o", color="white", mec=style.ORANGE)
    ax.set_xticks(range(len(table)), [str(row["degree"]) for row in table])
    ax.set_yscale("symlog", linthresh=1e-2)
    ax.set(xlabel="degree k, if it were", ylabel="gain $z^k$: mean and extremes")
    ax.set_title("degree unknown: what each would make of z")
    kept = chosen(table, "degree", "gain_mean", "gain_min", "gain_max")
    return [{"panel": "gain by degree", **row} for row in kept]


@style.styled
def similarity(results: dict[str, Any]) -> Figure:
    """Draw the cosines between layers' deviations z - 1, a panel per size of layer."""
    groups = results["vectors"]["similarity"][:4]
    figure = Plot(figsize=(12, 4.6))
    for i, group in enumerate(groups):
        ax = figure.add_subplot(1, len(groups), i + 1)
        cosine = np.array(group["cosine"], dtype=float)
        names = group["modules"]
        figure.rows += [  # symmetric: each pair once
            {"first": names[i], "second": names[j], "cosine": float(f"{cosine[i, j]:.6g}")}
            for i, j in zip(*np.triu_indices(len(names)), strict=True)
        ]
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
    shares = ("share", "share_rank_1", "expected_share", "relative_norm")
    figure = Plot(chosen(table, "module", "role", *shares), figsize=(12, 6.6))
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
    figure = Plot(
        ({"panel": "closest LoRA", **row} for row in chosen(table, "rank", "parameters", "share")),
        figsize=(12, 4.6),
    )
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
    at = {"parameters": total["parameters"], "share": share}
    figure.rows.append({"panel": "Propulsion", **at})
    left.plot(total["parameters"], share, "D", color=style.ORANGE, label="Propulsion")
    left.set(xscale="log", ylim=(-0.05, 1.1), xlabel="parameters", ylabel="share of the update")
    left.set_title("by parameters; numbers are ranks")
    left.legend()
    layers = [row for row in results["updates"]["layers"] if row.get("spectrum")]
    looks = style.appearance(role(row) for row in layers)
    for row in layers:
        values = np.asarray(row["spectrum"], dtype=float)
        figure.rows += [
            {"panel": "spectrum", "module": row["module"], "number": n, "value": float(value)}
            for n, value in enumerate(values, 1)
        ]
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
    figure = Plot(chosen(table, "module", "role", "drift"), figsize=(12, 4.8))
    measures = ("linearization_error", "feature_drift")
    figure.rows += [{"measure": f"{key}, all", "value": found[key]} for key in measures]
    ax = figure.add_subplot()
    smallest = max(found["drift_floor"] / 10, 1e-9)
    for i, row in enumerate(table):
        colour, marker = looks[role(row)]
        ax.plot(i, max(row["drift"], smallest), marker, color=colour, markersize=5)
    for limit, name in ((HOLDS, "holds below"), (WEAKLY, "weakly below")):
        ax.axhline(limit, color="black", linewidth=0.9, linestyle="--", label=f"{name} {limit:g}")
    for key, colour in zip(measures, (style.PURPLE, style.BLUE), strict=True):
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
