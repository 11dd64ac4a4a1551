"""Figures of an experiment's results: each function takes plain results and returns a Figure."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ntk_propulsion import words
from ntk_propulsion.figures import style
from ntk_propulsion.figures.before.depth import depth_axis, role
from ntk_propulsion.figures.before.plot import Plot, chosen
from ntk_propulsion.figures.before.scaling import gain_histogram, scaling_figure
from ntk_propulsion.figures.style import plain
from ntk_propulsion.theory.distances import direction

SMOOTH = 20  # a loss curve with more points than this gets a running mean
ROUNDING = 1e-9  # eigenvalues below this share of the largest are rounding


@style.styled
def module_distances(results: dict[str, Any], point: str = "theta0", worst: int = 4) -> Figure:
    """Draw alignment, CKA and trace share of each module's kernels, in the network's order.

    Args:
        results: The experiment's results.
        point: The parameters at which the kernels were taken.
        worst: How many of the modules with the lowest alignment are numbered and named.
    """
    modules = [dict(row) for row in words.rows(results["per_module"], point=point)]
    looks = style.appearance(map(role, modules))
    shares = ("trace_share_full", "trace_share_propulsion")
    figure = Plot(chosen(modules, "module", "role", "alignment", "cka", *shares), figsize=(12, 8))
    grid = figure.add_gridspec(3, 1, height_ratios=[1.2, 1, 1])
    axes = [figure.add_subplot(grid[i]) for i in range(3)]
    size = 6 if len(modules) < 80 else 4.5
    for ax, key in zip(axes, ("alignment", "cka"), strict=False):
        drawn = _dots(ax, modules, key, looks, size)
        ax.set_ylim(min([0, *drawn.values()]) - 0.1, 1.05)
        ax.set_ylabel(f"{words.metric_label(key)}, $K_P$ with $K_F$")
        if key == "alignment":
            missing = len(modules) - len(drawn)
            _name_lowest(ax, modules, drawn, worst)
    for key in shares:
        _dots(axes[2], modules, key, looks, size, hollow=key == "trace_share_propulsion")
    axes[2].set_yscale("log")
    axes[2].set_ylabel("share of the trace")
    depth_axis(axes, modules)
    keys = [(plain(name), colour, marker, colour) for name, (colour, marker) in looks.items()]
    keys += [("share of $K_F$", "black", "o", "black"), ("share of $K_P$", "black", "o", "white")]
    handles = [
        Line2D([], [], color=c, marker=m, mfc=face, linestyle="", label=label)
        for label, c, m, face in keys
    ]
    figure.legend(handles=handles, loc="outside right upper")
    style.frame(
        figure,
        "Per module: how far Propulsion's kernel follows full fine-tuning's, "
        f"{words.POINTS.get(point, point)}",
        f"{style.setting(results)} 1 is proportional (alignment) or proportional up to an offset "
        "(CKA)."
        + (f" {missing} modules that Propulsion doesn't scale have no dot above." * (missing > 0)),
    )
    return figure


def _dots(
    ax: Axes,
    modules: list[dict[str, Any]],
    key: str,
    looks: dict[str, tuple[str, str]],
    size: float,
    hollow: bool = False,
) -> dict[int, float]:
    """Draw a number of every module that has one; return ``{position: number}``."""
    drawn = {}
    for i, module in enumerate(modules):
        value = words.finite(module.get(key))
        if value is not None:
            colour, marker = looks[role(module)]
            face = "white" if hollow else colour
            ax.plot(i, value, marker, color=colour, mfc=face, markersize=size)
            drawn[i] = value
    return drawn


def _name_lowest(
    ax: Axes, modules: list[dict[str, Any]], drawn: dict[int, float], worst: int
) -> None:
    """Number the lowest dots of a panel and name their modules above it, two a line."""
    lowest = sorted(drawn, key=lambda i: drawn[i])[:worst]
    names = []
    for rank, i in enumerate(lowest, 1):
        ax.annotate(
            str(rank),
            (i, drawn[i]),
            (0, -13),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
            weight="bold",
        )
        names.append(f"{rank}  {plain(modules[i]['module'])}  {drawn[i]:.2f}")
    lines = [",   ".join(names[i : i + 2]) for i in range(0, len(names), 2)]
    ax.set_title("\n".join(["lowest alignment:", *lines]) if lines else "", fontsize=8.5)


@style.styled
def spectra(results: dict[str, Any], kernels: dict[str, np.ndarray]) -> Figure:
    """Draw eigenvalues over the trace, log-log, with and without the head.

    Full fine-tuning's and Propulsion's kernel at each point, and the random subset of equal size.
    """
    shown = (*style.TUNING_COLOURS, "random_subset")
    keys = [key.split("/") for key in kernels]
    keys = [key for key in keys if key[1] in shown]
    parts = [p for p in ("all", "without_head") if any(key[2] == p for key in keys)]
    lines = dict(zip(words.POINTS, ("-", "--", ":"), strict=True))
    looks = style.appearance(["full", "propulsion", *(key[1] for key in keys)])
    figure = Plot(figsize=(12, 5.4))
    for i, part in enumerate(parts):
        ax = figure.add_subplot(1, len(parts), i + 1)
        for point, tuning, of in keys:
            main = tuning in style.TUNING_COLOURS
            if of != part or not (main or point == "theta0"):
                continue
            values = _spectrum(kernels[f"{point}/{tuning}/{part}"])
            if not values.size:  # a tuning of the head alone, without the head
                continue
            where = {"part": part, "point": point, "tuning": tuning}
            figure.rows += [
                {**where, "rank": i, "share_of_trace": float(f"{value:.6g}")}
                for i, value in enumerate(values, 1)
            ]
            found = words.row(results["kernels"], point=point, tuning=tuning, part=part)
            rank = words.number((found or {}).get("effective_rank"))
            ax.loglog(
                np.arange(1, len(values) + 1),
                values,
                lines.get(point, "-."),
                color=looks[tuning][0],
                linewidth=1.8 if main else 1.0,
                label=f"{plain(words.tuning(tuning))}, {words.POINTS.get(point, point)}: {rank}",
            )
        ax.set(xlabel="eigenvalue's rank", ylabel="eigenvalue / trace")
        rows = next(len(k) for name, k in kernels.items() if name.endswith(f"/{part}"))
        ax.set_title(f"{words.PARTS[part]}: kernels of {rows} rows")
        ax.legend(title="effective rank tr(K)²/|K|² of", title_fontsize=9, loc="lower left")
    opposite = results["model"].get("head") == "probe" and len(results["task"]["labels"] or ()) == 2
    style.frame(
        figure,
        "Spectra: how many directions carry each kernel",
        f"{style.setting(results)} No units. Eigenvalues below {ROUNDING:g} of the largest are "
        "left out as rounding."
        + " The two logits of this probe are opposite: but for the classifier's own part, half of "
        "the eigenvalues vanish." * opposite,
    )
    return figure


def _spectrum(kernel: np.ndarray) -> np.ndarray:
    """Return the eigenvalues over the trace, largest first, without rounding; none of a zero."""
    kernel = kernel.astype(float)
    trace = np.trace(kernel)
    if not trace > 0:
        return np.empty(0)
    values = np.linalg.eigvalsh((kernel + kernel.T) / 2)[::-1]
    return values[values > ROUNDING * values[0]] / trace


@style.styled
def scaling_histogram(
    results: dict[str, Any], scaling: dict[str, np.ndarray], degree: int
) -> Figure:
    """Draw the scaling vectors after training: z by role, the gain z**k, and z by module.

    Args:
        results: The experiment's results; ``scaling_vectors`` names each module's role.
        scaling: ``{module: z (d_out,)}``.
        degree: The degree k of the gain.
    """
    table = [dict(r) for r in results["scaling_vectors"] if r["module"] != "total"]
    figure = scaling_figure(table, scaling, lambda ax, z: gain_histogram(ax, z, degree))
    style.frame(
        figure,
        "Propulsion's scaling vectors after training",
        f"{style.setting(results)} Shaded: the range that the paper reports after training.",
    )
    return figure


@style.styled
def training_curves(results: dict[str, Any]) -> Figure:
    """Draw the training loss of each method over its steps, with the metric before and after."""
    task = results["task"]
    figure = Plot(figsize=(12, 4.6))
    ax = figure.add_subplot()
    looks = style.appearance(["full", "propulsion", *(r["method"] for r in results["training"])])
    for run in results["training"]:
        losses = np.asarray(run["losses"], dtype=float).reshape(-1, 2)
        before, after = (words.number(run.get(k)) for k in ("metric_before", "metric_after"))
        label = (
            f"{plain(words.tuning(run['method']))}: {plain(task['metric'])} {before} → {after}; "
            f"learning rate {run['learning_rate']:g}, "
            f"{words.count(run['trainable_parameters'])} parameters"
        )
        colour, marker = looks[run["method"]]
        smooth = len(losses) > SMOOTH
        style_of_raw = {"alpha": 0.35, "linewidth": 0.9} if smooth else {"label": label}
        ax.plot(*losses.T, marker="" if smooth else marker, color=colour, **style_of_raw)
        table = [{"method": run["method"], "step": int(n), "loss": loss} for n, loss in losses]
        if smooth:
            width = max(3, len(losses) // 12)
            mean = np.convolve(losses[:, 1], np.ones(width) / width, mode="valid")
            ax.plot(losses[width - 1 :, 0], mean, color=colour, linewidth=2.2, label=label)
            for row, value in zip(table[width - 1 :], mean, strict=True):
                row["running_mean"] = float(value)
        figure.rows += table
    unit = "mean squared error" if task["kind"] == "regression" else "cross-entropy, nats"
    ax.set(xlabel="step", ylabel=f"training loss ({unit})")
    ax.legend()
    style.frame(
        figure,
        "Training",
        f"{style.setting(results)} Thin: each batch; thick: running mean of the last batches.",
    )
    return figure


@style.styled
def distance_summary(results: dict[str, Any]) -> Figure:
    """Draw every tuning's distances from full fine-tuning with intervals, with and without head."""
    table = [d for d in results["distances"] if d["reference"] == "full" and d["part"] != "head"]
    table.sort(key=lambda d: d["tuning"] != "propulsion")  # its points side by side, first
    lines = list(dict.fromkeys((d["point"], d["tuning"]) for d in table))
    shown = ("cka", "alignment", "best_scale_error", "relative_frobenius")
    names = [
        f"{plain(words.tuning(tuning))}\n{words.POINTS.get(point, point)}"
        for point, tuning in lines
    ]
    figure = Plot(figsize=(12, 1.9 + 0.72 * len(lines)))
    for i, name in enumerate(shown):
        ax = figure.add_subplot(1, len(shown), i + 1)
        right = 1.0
        for d in table:
            value, low, high = words.metric(d, name)
            if value is None:
                continue
            where = chosen([d], "point", "tuning", "part")[0]
            figure.rows.append({**where, "metric": name, "value": value, "low": low, "high": high})
            with_head = d["part"] == "all"
            y = lines.index((d["point"], d["tuning"])) + (-0.17 if with_head else 0.17)
            colour = style.TUNING_COLOURS.get(d["tuning"], style.GREY)
            if low is not None and high is not None:
                ax.plot([low, high], [y, y], color=colour, linewidth=1.6)
            ax.plot(value, y, "o", color=colour, mfc=colour if with_head else "white", markersize=6)
            ax.annotate(
                words.show(name, value),
                (value, y),
                (0, 5),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
            right = max(right, value, high or value)
        ax.set_xlim(min(-0.12 * right, ax.get_xlim()[0]), right * 1.12)
        ax.set_ylim(len(lines) - 0.45, -0.6)
        ax.set_yticks(range(len(lines)), names if i == 0 else [""] * len(lines))
        best = direction(name)
        ax.set_title(f"{words.metric_label(name)} ({best})")
        ax.grid(False, axis="y")
    kinds = [
        Line2D([], [], color="black", marker="o", mfc=face, linestyle="", label=label)
        for face, label in (("black", "with the head"), ("white", "without the head"))
    ]
    figure.legend(handles=kinds, loc="outside upper right", ncols=2)
    style.frame(
        figure,
        "How far from full fine-tuning's kernel",
        f"{style.setting(results)} No units. Lines: intervals over examples. CKA, alignment and "
        "best-scale error ignore the kernels' scale; the raw error does not.",
    )
    return figure
