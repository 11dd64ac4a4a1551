"""Figures of trajectories: measures over the steps, and what became of the Jacobian."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ntk_propulsion import words
from ntk_propulsion.errors import InputError
from ntk_propulsion.figures import style
from ntk_propulsion.figures.pairs import CLIP, per_pair
from ntk_propulsion.figures.plot import Plot, Record
from ntk_propulsion.figures.setting import Setting
from ntk_propulsion.figures.style import plain
from ntk_propulsion.measurements.regime import HOLDS, WEAKLY
from ntk_propulsion.theory.distances import direction
from ntk_propulsion.theory.inputs import Array

if TYPE_CHECKING:
    from ntk_propulsion.trajectories.compare import CourseDistance
    from ntk_propulsion.trajectories.trajectory import Trajectory

KERNELS = {
    "own-full": "what each trains, K_t, from full fine-tuning's K_F",
    "full": "K_F at each one's parameters, from full fine-tuning's K_F",
}
MEASURES = ("cka", "best_scale_error")
BOTTOM = 1e-4  # of what is drawn of drifts and errors: less is rounding in single precision
LINES = {"own": "-", "full": "--"}
REGIME = ("feature_drift", "linearization_error")
PANELS = {
    "feature_drift": "feature drift |J_t - J_0| / |J_0|",
    "linearization_error": "linearization error |f_t - f_lin| / |f_t - f_0|",
    "feature_velocity": "feature velocity, per step",
    "cka": "distance from θ₀: 1 - CKA(K_t, K_0)",
    "target_alignment": "alignment with the targets, centred",
    "effective_rank": "effective rank tr(K)² / |K|²",
}
"""Quantities of `Trajectory.table` in the order of their panels; the first three have examples."""


@style.styled
def draw_trajectories(trajectories: Sequence[Trajectory]) -> Plot:
    """Draw drift, linearization error, velocity, distance from theta_0, alignment and rank.

    Lines are of all examples; the bands of the first three panels hold the middle half of the
    examples. Solid: the kernel of what trains; dashed: K_F at the same parameters.

    Raises:
        InputError: There is no trajectory.
    """
    if not trajectories:
        raise InputError("there is no trajectory to draw")
    names = _names(trajectories)
    looks = style.tuning_looks(names)
    examined = trajectories[0].points[0].per_example
    figure = Plot(_drawn(trajectories), figsize=(12, 7.6))
    for i, (quantity, label) in enumerate(PANELS.items()):
        ax = figure.add_subplot(2, 3, i + 1)
        for name, trajectory in zip(names, trajectories, strict=True):
            _draw(ax, trajectory, quantity, *looks[name])
        if quantity in examined:
            ax.set_yscale("log", nonpositive="mask")
            ax.set_ylim(bottom=BOTTOM, top=max(1.0, ax.get_ylim()[1]))
        if quantity in REGIME:
            _thresholds(ax)
        ax.set_title(label)
        style.steps(ax, [step for trajectory in trajectories for step in trajectory.steps])
    handles = [
        Line2D([], [], color=looks[name][0], marker=looks[name][1], label=_legend(name, t))
        for name, t in zip(names, trajectories, strict=True)
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=min(3, len(handles)))
    style.frame(
        figure,
        "Kernels along training",
        f"{_setting(trajectories[0])} Solid: the kernel of what trains; dashed, hollow: K_F at the "
        "same parameters. No units but for the velocity (per step). Above: bands hold the middle "
        f"half of the examples, and what is below {BOTTOM:g} is not drawn; up to {HOLDS} (dotted) "
        f"a property of the kernel regime holds, up to {WEAKLY} weakly.",
    )
    return figure


@style.styled
def draw_changes(trajectory: Trajectory, steps: Sequence[int] | None = None) -> Plot:
    """Draw (J_t - J_0)(J_t - J_0)' at some steps on one scale, beside K_0 on its own.

    The paper's appendix C shows differences of Jacobians between steps; here each pixel is a pair
    of examples, the trace over outputs, and examples are sorted by their targets.

    Args:
        trajectory: A recording.
        steps: By default four, spread over the recorded ones after theta_0.

    Raises:
        InputError: A step was not recorded, or there is none but theta_0.
    """
    chosen = list(steps) if steps is not None else _spread(trajectory.steps[1:], 4)
    if not chosen:
        raise InputError(f"{trajectory.method} has no point after theta_0: nothing has changed")
    points = [trajectory.at(step) for step in chosen]
    n = len(points[0].outputs)
    order = _order(trajectory, n)
    start = per_pair(trajectory.points[0].own.matrix.double().numpy(), n)[order]
    changes = [per_pair(point.measures.difference, n)[order] for point in points]
    figure = Plot(_pixels(chosen, [start, *changes]), figsize=(2.6 * (len(points) + 1) + 0.8, 4.6))
    axes = [figure.add_subplot(1, len(points) + 1, i + 1) for i in range(len(points) + 1)]
    _image(figure, [axes[0]], [start], "K_0 = J_0 J_0', output² / parameter²")
    _image(figure, axes[1:], changes, "(J_t - J_0)(J_t - J_0)', in the same unit")
    axes[0].set_title("at θ₀")
    axes[0].set_ylabel(f"examples{', by target' * (trajectory.targets is not None)}")
    for ax, point in zip(axes[1:], points, strict=True):
        ax.set_title(f"step {point.step}")
        ax.set_xlabel(f"drift {words.number(point.measures.feature_drift)}", fontsize=9)
    style.frame(
        figure,
        f"What training changed in the Jacobian: {plain(words.tuning(trajectory.method))}",
        f"{_setting(trajectory)} The panels on the right share one scale; fixed "
        "features would leave them empty.",
    )
    return figure


@style.styled
def draw_between(distances: Sequence[CourseDistance], *, setting: Setting | str = "") -> Plot:
    """Draw every method's CKA and best-scale error from full fine-tuning at equal steps.

    Args:
        distances: As `compare_trajectories` gives them, of one method or several.
        setting: What the caption says that they are of.

    Raises:
        InputError: There is none to draw.
    """
    shown = [d for d in distances if d.quantity in MEASURES and d.kernel in KERNELS]
    if not shown:
        raise InputError("there are no distances between trajectories to draw")
    looks = style.tuning_looks(d.method for d in shown)
    figure = Plot([asdict(d) for d in shown], figsize=(10.5, 6.4))
    axes = figure.subplots(len(MEASURES), len(KERNELS), sharex=True, sharey="row")
    for line, quantity in zip(axes, MEASURES, strict=True):
        best = direction(quantity)
        line[0].set_ylabel(f"{words.metric_label(quantity)} ({best})")
        for ax, kernel in zip(line, KERNELS, strict=True):
            of = [d for d in shown if (d.kernel, d.quantity) == (kernel, quantity)]
            _draw_distances(ax, of, looks)
    for ax, title in zip(axes[0], KERNELS.values(), strict=True):
        ax.set(xlabel="")
        ax.set_title(title, fontsize=9)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right upper")
    style.frame(
        figure,
        "How far each method is from full fine-tuning at equal steps",
        f"{plain(setting)} No units; each method at its own learning rate.",
    )
    return figure


def _draw_distances(
    ax: Axes, distances: Sequence[CourseDistance], looks: Mapping[str, style.Look]
) -> None:
    for method, (colour, marker) in looks.items():
        course = {d.step: words.finite(d.value) for d in distances if d.method == method}
        values = [np.nan if value is None else value for value in course.values()]
        label = plain(words.tuning(method))
        ax.plot(list(course), values, color=colour, marker=marker, label=label, clip_on=False)
    style.steps(ax, [d.step for d in distances])


def _drawn(trajectories: Sequence[Trajectory]) -> list[Record]:
    return [
        {**vars(row), "learning_rate": trajectory.settings.get("learning_rate")}
        for trajectory in trajectories
        for row in trajectory.table()
        if row.quantity in PANELS
    ]


def _pixels(steps: Sequence[int], images: Sequence[Array]) -> list[Record]:
    """Return what the images show, in the order of their rows and columns; the first is K_0."""
    names = ["K_0", *(f"change at step {step}" for step in steps)]
    return [
        {"image": name, "row": i, "column": j, "value": float(value)}
        for name, image in zip(names, images, strict=True)
        for (i, j), value in np.ndenumerate(image)
    ]


def _draw(ax: Axes, trajectory: Trajectory, quantity: str, colour: str, marker: str) -> None:
    examined = quantity in trajectory.points[0].per_example
    first = 1 if examined else 0  # at theta_0 these are 0, or rounding: nothing for a log scale
    for kernel in ("own",) if examined else ("own", "full"):
        found = trajectory.find(quantity, kernel)
        if found is None:
            continue
        steps, values = found[0][first:], found[1][first:]
        values = 1 - values if quantity == "cka" else values
        face = colour if kernel == "own" else "white"
        ax.plot(steps, values, LINES[kernel], color=colour, marker=marker, mfc=face, markersize=4.5)
    if examined:
        values = np.minimum(trajectory.per_example(quantity)[first:], 1 / BOTTOM)
        low, high = np.quantile(values, (0.25, 0.75), axis=1)
        ax.fill_between(trajectory.steps[first:], low, high, color=colour, alpha=0.15, linewidth=0)


def _thresholds(ax: Axes) -> None:
    for value in (HOLDS, WEAKLY):
        ax.axhline(value, color=style.GREY, ls=":", linewidth=1)


def _image(figure: Figure, axes: list[Axes], images: list[Array], label: str) -> None:
    """Draw images on one scale that is symmetric about zero."""
    limit = float(np.percentile(np.abs(images), CLIP)) or 1.0
    for ax, image in zip(axes, images, strict=True):
        picture = ax.imshow(image, cmap=style.DIVERGING, vmin=-limit, vmax=limit)
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
    bar = figure.colorbar(picture, ax=axes, orientation="horizontal", shrink=0.9, pad=0.03)
    bar.set_label(label, fontsize=8.5)
    bar.locator = MaxNLocator(3)
    bar.update_ticks()


def _names(trajectories: Sequence[Trajectory]) -> list[str]:
    """Return a name for each; of one method with several settings, the rate tells them apart."""
    methods = [trajectory.method for trajectory in trajectories]
    names = [
        m if methods.count(m) == 1 else f"{m} {t.settings.get('learning_rate')}"
        for m, t in zip(methods, trajectories, strict=True)
    ]
    return [n if names.count(n) == 1 else f"{n} ({i + 1})" for i, n in enumerate(names)]


def _legend(name: str, trajectory: Trajectory) -> str:
    rate = trajectory.settings.get("learning_rate")
    return plain(f"{words.tuning(name)}, learning rate {rate:g}" if rate else words.tuning(name))


def _setting(trajectory: Trajectory) -> str:
    return plain(
        Setting(
            model=Path(str(trajectory.settings.get("model") or "")).name,
            task=str(trajectory.settings.get("task") or ""),
            examples=len(trajectory.points[0].outputs),
        )
    )


def _order(trajectory: Trajectory, n: int) -> Any:
    """Return the examples' order by target, for rows and columns."""
    targets = trajectory.targets
    if targets is None:
        order = np.arange(n)
    else:
        columns = np.asarray(targets).reshape(n, -1)
        keys = columns.argmax(1) if columns.shape[1] > 1 else columns[:, 0]
        order = np.argsort(keys, kind="stable")
    return np.ix_(order, order)


def _spread(steps: Sequence[int], count: int) -> list[int]:
    """Return at most so many of the steps, evenly spread, with the last."""
    if len(steps) <= count:
        return list(steps)
    return [steps[round(i)] for i in np.linspace(0, len(steps) - 1, count)]
