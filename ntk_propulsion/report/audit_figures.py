"""Figures of an audited checkpoint: how alike layers were scaled, updates, ranks, regime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from ntk_propulsion import words
from ntk_propulsion.auditing.checkpoint import AuditedCheckpoint, AuditedKernels, AuditedRegime
from ntk_propulsion.auditing.coverage import Part
from ntk_propulsion.auditing.shares import measured, unsaid
from ntk_propulsion.auditing.tables import AllLayers, AuditedLayer, SimilarLayers
from ntk_propulsion.figures import Plot, style
from ntk_propulsion.figures.depth import Place, depth_axis, spoken
from ntk_propulsion.figures.style import plain
from ntk_propulsion.measurements.regime import HOLDS, WEAKLY

SMALLEST = 1e-9
"""What is drawn, on a logarithmic axis, for a share of 0."""
MOST_SIZES = 4


def caption(of: AuditedCheckpoint) -> str:
    """Return the sentence that says whose figure this is."""
    return f"Checkpoint {of.name}: {of.kind.words}."


def _rests_on(of: AuditedCheckpoint) -> str:
    """Return the sentence that says what a figure of updates rests on."""
    return f"Shown: {measured(of)}; compared: {of.coverage.words}."


@style.styled
def similarity(of: AuditedCheckpoint) -> Figure:
    """Draw the cosines between layers' deviations z - 1, a panel per size of layer."""
    groups = of.vectors.similarity[:MOST_SIZES] if of.vectors else ()
    figure = Plot(figsize=(12, 4.6))
    for i, group in enumerate(groups):
        ax = figure.add_subplot(1, len(groups), i + 1)
        image = _cosines(ax, group)
        figure.rows += _pairs(group)
    figure.colorbar(image, ax=figure.axes, shrink=0.7, label="cosine of z - 1 (no unit)")
    part = of.vectors.part if of.vectors else Part()
    vectors = part.of_the("vectors'", "layer")
    said = f"{plain(caption(of))} Layers in the file's order. Shown: {vectors}."
    style.frame(figure, "How alike layers were scaled", said)
    return figure


def _cosines(ax: Axes, group: SimilarLayers) -> Any:
    cosine = np.array(group.cosine, dtype=float)
    image = ax.imshow(cosine, cmap=style.DIVERGING, vmin=-1, vmax=1)
    ax.grid(False)
    ax.set(xticks=[], yticks=[])
    ax.set_title(f"{len(cosine)} layers of {group.size} outputs")
    mean, chance = words.number(group.mean_absolute), words.number(group.chance)
    ax.set_xlabel(f"mean absolute cosine {mean};\nunrelated layers {chance}", fontsize=9)
    return image


def _pairs(group: SimilarLayers) -> list[dict[str, Any]]:
    """Return each pair of layers once: the cosine is symmetric."""
    cosine, names = np.array(group.cosine, dtype=float), group.modules
    return [
        {"first": names[i], "second": names[j], "cosine": float(f"{cosine[i, j]:.6g}")}
        for i, j in zip(*np.triu_indices(len(names)), strict=True)
    ]


@style.styled
def updates(of: AuditedCheckpoint) -> Figure:
    """Draw, module by module, the share of its update that a Propulsion explains, and its size."""
    layers = [layer for layer in of.updates.layers if layer.share is not None]
    shares = ("module", "role", "share", "share_rank_1", "expected_share", "relative_norm")
    rows = [{key: getattr(layer, key) for key in shares} for layer in layers]
    figure = Plot(rows, figsize=(12, 6.6))
    top, bottom = (figure.add_subplot(2, 1, i) for i in (1, 2))
    _explained(top, layers)
    looks = style.role_looks(layer.role for layer in layers)
    for i, layer in enumerate(layers):
        colour, marker = looks[layer.role]
        bottom.plot(i, layer.relative_norm or np.nan, marker, color=colour, markersize=6)
    bottom.set(yscale="log", ylabel="relative size |W - W₀| / |W₀|")
    figure.legend(loc="outside right upper")
    depth_axis([top, bottom], [Place(layer.module, layer.role) for layer in layers])
    total = of.updates.total
    share, chance = (total.share, total.expected_share) if total else (None, None)
    reason = unsaid(of)
    together = f"no share is said, for {reason}" if reason else words.percent(share)
    style.frame(
        figure,
        "How much of each layer's update is a Propulsion",
        f"{plain(caption(of))} All layers but the head: {plain(together)}; a "
        f"random direction per neuron: {words.percent(chance)}. No units. {_rests_on(of)}",
    )
    return figure


def _explained(ax: Axes, layers: Sequence[AuditedLayer]) -> None:
    """Draw the shares beside chance and beside the closest updates of rank 1."""
    looks = style.role_looks(layer.role for layer in layers)
    shares = [max(layer.share or 0.0, SMALLEST) for layer in layers]
    chance = [layer.expected_share or SMALLEST for layer in layers]
    for i, (layer, share) in enumerate(zip(layers, shares, strict=True)):
        colour, marker = looks[layer.role]
        ax.plot(i, share, marker, color=colour, markersize=6)
        if layer.share_rank_1 is not None:
            ax.plot(i, layer.share_rank_1, "_", color=style.GREY, markersize=9)
    ax.plot(range(len(layers)), chance, ":", color="black", linewidth=1, label="chance")
    _legend(ax, looks)
    if any(layer.share_rank_1 is not None for layer in layers):
        ax.plot([], [], "_", color=style.GREY, linestyle="", label="closest rank 1")
    smallest = min([*shares, *chance])
    ax.set(yscale="log", ylabel="share of the update explained", ylim=(smallest / 2, 1.5))


def _legend(ax: Axes, looks: dict[str, tuple[str, str]]) -> None:
    for role, (colour, marker) in looks.items():
        ax.plot([], [], marker, color=colour, linestyle="", label=spoken(role))


@style.styled
def ranks(of: AuditedCheckpoint) -> Figure:
    """Draw what the closest update of each rank explains, by its parameters, and Propulsion."""
    total, layers = of.updates.total, [layer for layer in of.updates.layers if layer.spectrum]
    figure = Plot(figsize=(12, 4.6))
    left, right = (figure.add_subplot(1, 2, i) for i in (1, 2))
    if total is not None:
        figure.rows += _closest(left, total)
    figure.rows += _spectra(right, layers)
    style.frame(
        figure,
        "The closest LoRA of each rank beside Propulsion",
        f"{plain(caption(of))} Weights of all layers but the head; no units. {_rests_on(of)}",
    )
    return figure


def _closest(ax: Axes, total: AllLayers) -> list[dict[str, Any]]:
    """Draw the closest update of each rank and the closest Propulsion by their parameters."""
    counts, shares = zip(*((each.parameters, each.share) for each in total.lora), strict=True)
    ax.plot(counts, shares, "o-", color=style.GREEN, label="closest LoRA")
    for each in total.lora:
        ax.annotate(
            str(each.rank),
            (each.parameters, np.nan if each.share is None else each.share),
            (0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    share = np.nan if total.share_of_weights is None else total.share_of_weights
    ax.plot(total.parameters, share, "D", color=style.ORANGE, label="Propulsion")
    ax.set(xscale="log", ylim=(-0.05, 1.1), xlabel="parameters", ylabel="share of the update")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(lambda parameters, _: words.count(parameters))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_title("by parameters; numbers are ranks")
    ax.legend()
    return [
        *(
            {
                "panel": "closest LoRA",
                "rank": each.rank,
                "parameters": each.parameters,
                "share": each.share,
            }
            for each in total.lora
        ),
        {"panel": "Propulsion", "parameters": total.parameters, "share": share},
    ]


def _spectra(ax: Axes, layers: Sequence[AuditedLayer]) -> list[dict[str, Any]]:
    """Draw the singular values of each layer's update."""
    rows: list[dict[str, Any]] = []
    looks = style.role_looks(layer.role for layer in layers)
    for layer in layers:
        values = np.asarray(layer.spectrum, dtype=float)
        rows += [
            {"panel": "spectrum", "module": layer.module, "number": n, "value": float(value)}
            for n, value in enumerate(values, 1)
        ]
        positive = np.where(values > 0, values, np.nan)
        numbers = np.arange(1, len(values) + 1)
        ax.plot(numbers, positive, color=looks[layer.role][0], linewidth=0.8, alpha=0.7)
    for role, (colour, _) in looks.items():
        ax.plot([], [], color=colour, label=spoken(role))
    ax.set(xscale="log", yscale="log", xlabel="singular value's number")
    ax.set(ylabel="singular value / largest", title="spectrum of each layer's update")
    ax.legend(fontsize=8)
    return rows


@style.styled
def regime(of: AuditedCheckpoint, kernels: AuditedKernels, measured: AuditedRegime) -> Figure:
    """Draw the feature drift of each module, and the two measures against the rule's limits.

    Args:
        of: The checkpoint.
        kernels: Its kernels.
        measured: Its regime.
    """
    roles = {row.module: row.role for row in kernels.per_module}
    drifts = {row.module: row.drift for row in measured.drift_per_module if row.drift is not None}
    places = [Place(module, roles.get(module, "other")) for module in drifts]
    measures = {
        "linearization_error": measured.linearization_error,
        "feature_drift": measured.feature_drift,
    }
    figure = Plot(figsize=(12, 4.8))
    figure.rows += [
        {"module": place.module, "role": place.role, "drift": drifts[place.module]}
        for place in places
    ]
    figure.rows += [{"measure": f"{key}, all", "value": value} for key, value in measures.items()]
    ax = figure.add_subplot()
    smallest = max((measured.drift_floor or 0.0) / 10, SMALLEST)
    looks = style.role_looks(place.role for place in places)
    for i, place in enumerate(places):
        colour, marker = looks[place.role]
        ax.plot(i, max(drifts[place.module], smallest), marker, color=colour, markersize=5)
    _limits(ax, measures, smallest)
    _legend(ax, looks)
    ax.set(yscale="log", ylabel="relative drift |J - J₀| / |J₀|")
    figure.legend(loc="outside right upper")
    depth_axis([ax], places)
    style.frame(
        figure,
        f"Kernel regime: {measured.kernel_regime}",
        f"{plain(caption(of))} Jacobians by {measured.of}, N = {kernels.examples} "
        "examples. No units.",
    )
    return figure


def _limits(ax: Axes, measures: dict[str, float | None], smallest: float) -> None:
    """Draw the rule's limits and the two measures of all modules."""
    for limit, name in ((HOLDS, "holds below"), (WEAKLY, "weakly below")):
        ax.axhline(limit, color="black", linewidth=0.9, linestyle="--", label=f"{name} {limit:g}")
    for (key, value), colour in zip(measures.items(), (style.PURPLE, style.BLUE), strict=True):
        if value is None:
            continue
        label = f"{key.replace('_', ' ')}, all: {words.number(value)}"
        ax.axhline(max(value, smallest), color=colour, linewidth=1.8, label=label)
