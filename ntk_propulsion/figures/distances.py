"""The figure of every tuning's distances from full fine-tuning's kernel, with intervals."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ntk_propulsion import words
from ntk_propulsion.errors import InputError, unknown
from ntk_propulsion.figures import style
from ntk_propulsion.figures.parts import check_comparable, parts_by_name
from ntk_propulsion.figures.plot import Plot, Record
from ntk_propulsion.figures.setting import Setting
from ntk_propulsion.figures.style import plain
from ntk_propulsion.measurements.distances import kernel_distances
from ntk_propulsion.measurements.tables import KernelDistance
from ntk_propulsion.theory.distances import direction, leading
from ntk_propulsion.theory.estimate import Estimate
from ntk_propulsion.theory.inputs import KernelLike, count_outputs


@style.styled
def distances(
    kernels: Mapping[str, KernelLike] | Sequence[KernelDistance],
    reference: str = "full",
    *,
    head: Collection[str] = (),
    outputs: int | None = None,
    seed: int = 0,
    setting: Setting | str = "",
) -> Plot:
    """Draw CKA, alignment, best-scale and raw error of every kernel, with and without the head.

    Args:
        kernels: By tuning, whose distances are then computed with intervals; or distances
            that are known.
        reference: The tuning that the others are held against.
        head: Names of the head's modules; Kernels with ``per_module`` are then shown without too.
        outputs: O, where the kernels are arrays; 1 by default.
        seed: Of the intervals.
        setting: What the caption says that they are of.

    Raises:
        InputError: There is nothing to compare, or no such reference.
    """
    if isinstance(kernels, Mapping):
        kernels = _measured(kernels, reference, head, outputs, seed)
    table = sorted(
        (d for d in kernels if d.reference == reference and d.part != "head"),
        key=lambda d: d.tuning != "propulsion",  # its points side by side, first
    )
    if not table:
        raise InputError(f"there is no distance from {reference!r} to draw")
    lines = list(dict.fromkeys((d.point, d.tuning) for d in table))
    figure = Plot(figsize=(12, 1.9 + 0.72 * max(2, len(lines))))
    shown = leading()
    for i, metric in enumerate(shown):
        ax = figure.add_subplot(1, len(shown), i + 1)
        figure.rows += _draw(ax, table, metric, lines)
        ax.set_yticks(range(len(lines)), map(_line, lines) if i == 0 else [""] * len(lines))
    if any(d.part != "all" for d in table):
        faces = (("black", "with the head"), ("white", "without the head"))
        figure.legend(
            handles=[
                Line2D([], [], color="black", marker="o", mfc=face, linestyle="", label=label)
                for face, label in faces
            ],
            loc="outside upper right",
            ncols=2,
        )
    what = "full fine-tuning's kernel" if reference == "full" else plain(words.tuning(reference))
    style.frame(
        figure,
        f"How far from {what}",
        f"{plain(setting)} No units. Lines: intervals over examples. CKA, alignment and "
        "best-scale error ignore the kernels' scale; the raw error does not.",
    )
    return figure


def _measured(
    kernels: Mapping[str, KernelLike],
    reference: str,
    head: Collection[str],
    outputs: int | None,
    seed: int,
) -> tuple[KernelDistance, ...]:
    """Measure every kernel's distances from the reference, by part, with intervals."""
    if reference not in kernels:
        raise unknown("reference", reference, kernels)
    check_comparable(kernels[reference], *kernels.values())
    count = count_outputs(*kernels.values(), outputs=outputs)
    parts = {tuning: parts_by_name(kernel, head) for tuning, kernel in kernels.items()}
    return kernel_distances("", parts, count, seed, reference)


def _line(line: tuple[str, str]) -> str:
    point, tuning = line
    return "\n".join(filter(None, (plain(words.tuning(tuning)), words.POINTS.get(point, point))))


def _draw(
    ax: Axes, table: Sequence[KernelDistance], metric: str, lines: list[tuple[str, str]]
) -> list[Record]:
    """Draw one metric of all kernels; return what was drawn."""
    looks = style.tuning_looks(d.tuning for d in table)
    apart = 0.17 if any(d.part != "all" for d in table) else 0.0
    right = 1.0
    rows: list[Record] = []
    for d in table:
        value, low, high = _numbers(d, metric)
        if value is None:
            continue
        where = {"point": d.point, "tuning": d.tuning, "part": d.part}
        rows.append({**where, "metric": metric, "value": value, "low": low, "high": high})
        y = lines.index((d.point, d.tuning)) + (-apart if d.part == "all" else apart)
        colour, _ = looks[d.tuning]
        if low is not None and high is not None:
            ax.plot([low, high], [y, y], color=colour, linewidth=1.6)
        face = colour if d.part == "all" else "white"
        ax.plot(value, y, "o", color=colour, mfc=face, markersize=6)
        look: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "fontsize": 8}
        ax.annotate(words.show(metric, value), (value, y), (0, 5), **look)
        right = max(right, value, high or value)
    ax.set_xlim(min(-0.12 * right, ax.get_xlim()[0]), right * 1.12)
    ax.set_ylim(len(lines) - 0.45, -0.6)
    best = direction(metric)
    ax.set_title(f"{words.metric_label(metric)} ({best})")
    ax.grid(False, axis="y")
    return rows


def _numbers(distance: KernelDistance, metric: str) -> tuple[float | None, ...]:
    found = distance.metrics.get(metric, Estimate(None))
    return tuple(map(words.finite, (found.value, found.low, found.high)))
