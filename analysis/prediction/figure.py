"""The figures of predicted trainings: over steps, by width, and of sign descent and Adam."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.framework.rules import Estimate
from analysis.framework.tables import Row
from analysis.speed.figure import Looks
from ntk_propulsion import words
from ntk_propulsion.figures import style

TITLES = {"squared": "squared loss", "cross-entropy": "cross-entropy"}


@style.styled
def transformer(rows: Sequence[Row], close: float, about: str) -> Figure:
    """Draw errors, label agreement and accuracy of the transformer's outputs over steps.

    Args:
        rows: The study's table.
        close: The error up to which the rule calls a prediction right.
        about: What the numbers rest on.
    """
    own = [row for row in rows if row["kind"] == "outputs" and not row.get("note")]
    figure = Figure(figsize=(12.5, 9.6))
    grid = figure.subplots(3, 2, sharex=True, sharey="row")
    looks = style.tuning_looks(list(dict.fromkeys(row["method"] for row in own)))
    for column, (loss, title) in enumerate(TITLES.items()):
        error, labels, accuracy = grid[:, column]
        for method, (colour, marker) in looks.items():
            these = [row for row in own if (row["loss"], row["method"]) == (loss, method)]
            test = [row for row in these if row["examples"] == "test"]
            train = [row for row in these if row["examples"] == "train"]
            solid: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 4}
            _line(error, test, "relative_error", **solid, seeds=True)
            _line(error, train, "relative_error", color=colour, linestyle=":")
            _line(labels, test, "label_agreement", **solid, seeds=True)
            _line(accuracy, test, "accuracy", **solid)
            _line(accuracy, test, "accuracy_predicted", color=colour, linestyle="--")
        error.axhline(close, color=style.GREY, linewidth=0.9)
        error.set(yscale="log")
        error.set_title(title)
        accuracy.set_xscale("symlog", linthresh=1, linscale=0.4)
        steps = sorted({row["step"] for row in own})
        accuracy.set_xticks(steps, [str(step) for step in steps], minor=False)
        accuracy.minorticks_off()
        accuracy.set_xlabel("step of full-batch gradient descent")
    for ax, label in zip(
        grid[:, 0],
        ("relative error of outputs", "share of equal classes", "test accuracy"),
        strict=True,
    ):
        ax.set_ylabel(label)
    figure.legend(handles=_handles(looks), loc="outside right upper")
    style.frame(
        figure,
        "Training a pretrained transformer: predicted from the kernel at $\\theta_0$, and real",
        f"{style.plain(about)}. Top: |predicted - real| / |real - f_0|; grey line: {close}, right "
        "by the rule. Lines: mean over seeds, of errors the geometric one; dots: seeds.",
    )
    return figure


def _handles(looks: Looks) -> list[Line2D]:
    grey: dict[str, Any] = {"color": style.GREY}
    return [
        *(
            Line2D([], [], color=colour, marker=marker, label=words.tuning(method))
            for method, (colour, marker) in looks.items()
        ),
        Line2D([], [], linestyle="-", label="test (accuracy: real)", **grey),
        Line2D([], [], linestyle=":", label="error on training texts", **grey),
        Line2D([], [], linestyle="--", label="accuracy predicted", **grey),
    ]


def _line(
    ax: Axes, rows: Sequence[Row], key: str, *, seeds: bool = False, marker: str = "", **look: Any
) -> None:
    """Draw the mean over seeds by step, and the seeds; errors on their logarithms."""
    found: dict[int, list[float]] = {}
    for row in rows:
        if row[key] is not None:
            found.setdefault(row["step"], []).append(row[key])
    if key == "relative_error":
        means = [float(np.exp(np.mean(np.log(values)))) for values in found.values()]
    else:
        means = [float(np.mean(values)) for values in found.values()]
    ax.plot(list(found), means, marker=marker, linewidth=1.5, **look)
    if seeds:
        for step, values in found.items():
            ax.plot([step] * len(values), values, ".", color=look["color"], alpha=0.4, ms=4)


@style.styled
def networks(rows: Sequence[Row], slopes: Mapping[str, Estimate], about: str) -> Figure:
    """Draw the error on test examples by width, a panel for each loss, and its slope."""
    figure = Figure(figsize=(10.5, 4.8))
    axes = figure.subplots(1, 2, sharey=True)
    for ax, (loss, title), colour in zip(
        axes, TITLES.items(), (style.BLUE, style.ORANGE), strict=True
    ):
        own = [row for row in rows if row["kind"] == "network" and row["loss"] == loss]
        widths = sorted({row["width"] for row in own})
        logs = [
            float(np.mean([np.log(row["relative_error"]) for row in own if row["width"] == width]))
            for width in widths
        ]
        ax.plot([r["width"] for r in own], [r["relative_error"] for r in own], "o", color=colour)
        fit = np.polyfit(np.log(widths), logs, 1)
        ax.plot(widths, np.exp(np.polyval(fit, np.log(widths))), color="black")
        start = np.exp(logs[0])
        for power, dash in ((-0.5, ":"), (-1.0, "--")):
            line = start * (np.array(widths) / widths[0]) ** power
            ax.plot(widths, line, dash, color=style.GREY, linewidth=1, label=f"slope {power:g}")
        ax.set(xscale="log", yscale="log", xlabel="width of the hidden layers")
        ax.set_xticks(widths, [str(width) for width in widths])
        ax.minorticks_off()
        ax.set_title(f"{title}: slope {slopes[loss]}")
        ax.legend(loc="lower left")
    axes[0].set_ylabel("relative error of outputs, test examples")
    style.frame(
        figure,
        "Random networks: error of the kernel's prediction after training, by width",
        f"{style.plain(about)}. |predicted - real| / |real - f_0|; dots: seeds; black line: "
        "regression of log error on log width; in brackets the 95% t-interval of its slope "
        "over seeds.",
    )
    return figure


@style.styled
def signs(rows: Sequence[Row], about: str) -> Figure:
    """Draw how each kernel predicts sign descent and Adam: error and direction, test examples."""
    own = [row for row in rows if row["kind"] == "sign" and row["examples"] == "test"]
    places = list(dict.fromkeys((row["method"], row["optimiser"]) for row in own))
    figure = Figure(figsize=(11, 2.6 + 0.5 * len(places)))
    axes = figure.subplots(1, 2, sharey=True)
    looks = {"asymmetric": (style.PURPLE, "o", -0.12), "symmetric": (style.GREEN, "s", 0.12)}
    names = {"asymmetric": "kernel <g, sign g'>", "symmetric": "kernel <g, g'>"}
    for ax, key in zip(axes, ("relative_error", "cosine"), strict=True):
        for kernel, (colour, marker, shift) in looks.items():
            for place, about_place in enumerate(places):
                found = [
                    row[key]
                    for row in own
                    if (row["method"], row["optimiser"]) == about_place and row["kernel"] == kernel
                ]
                label = names[kernel] if place == 0 else None
                look: dict[str, Any] = {"color": colour, "markersize": 6, "alpha": 0.75}
                ax.plot(found, [place + shift] * len(found), marker, label=label, **look)
    axes[0].axvline(1, color=style.GREY, linewidth=0.9)
    axes[0].set(xscale="log", xlabel="relative error of outputs (1: no better than f_0)")
    axes[1].set(xlabel="cosine of predicted with real change", xlim=(None, 1.02))
    labels = [f"{words.tuning(method)}\n{optimiser}" for method, optimiser in places]
    axes[0].set_yticks(range(len(places)), labels)
    axes[0].set_ylim(len(places) - 0.5, -0.5)
    axes[0].legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderpad=0)
    style.frame(
        figure,
        "Sign descent and Adam, predicted from two kernels at $\\theta_0$",
        f"{style.plain(about)}, one by one: each text once; squared loss. Marks: seeds, outputs of "
        "test texts after the last step. The symmetric kernel predicts gradient descent of as many "
        "steps, its first as long as the asymmetric one's.",
    )
    return figure
