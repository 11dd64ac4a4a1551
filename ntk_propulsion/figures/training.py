"""The figure of training losses over steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ntk_propulsion import words
from ntk_propulsion.errors import InputError
from ntk_propulsion.figures import style
from ntk_propulsion.figures.plot import Plot, Record
from ntk_propulsion.figures.setting import Setting
from ntk_propulsion.figures.style import plain

SMOOTH = 20  # a curve with more points than this gets a running mean

Losses = Sequence[float] | Sequence[tuple[int, float]]
"""The loss of each step's batch, in order; or (step, loss)."""


@style.styled
def training(
    losses: Mapping[str, Losses],
    *,
    remarks: Mapping[str, str] | None = None,
    unit: str = "",
    setting: Setting | str = "",
) -> Plot:
    """Draw the training loss of each method over its steps.

    Args:
        losses: By method, as `finetune` logs them or a trajectory holds them.
        remarks: What the legend says of a method beside its name, such as its learning rate.
        unit: Of the loss, such as ``"cross-entropy, nats"``.
        setting: What the caption says that they are of.

    Raises:
        InputError: No method has a loss.
    """
    curves = {method: _points(known) for method, known in losses.items()}
    if not any(map(len, curves.values())):
        raise InputError("there is no training loss to draw")
    figure = Plot(figsize=(12, 4.6 + 0.25 * len(curves)))
    ax = figure.add_subplot()
    looks = style.tuning_looks(curves)
    for method, points in curves.items():
        remark = (remarks or {}).get(method, "")
        name = plain(": ".join(filter(None, (words.tuning(method), remark))))
        figure.rows += _draw(ax, method, points, name, looks[method])
    ax.set(xlabel="step", ylabel=f"training loss ({unit})" if unit else "training loss")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(loc="upper left", bbox_to_anchor=(0, -0.14), borderaxespad=0)  # below the curves
    smoothed = any(len(points) > SMOOTH for points in curves.values())
    style.frame(
        figure,
        "Training",
        plain(setting) + " Thin: each batch; thick: running mean of the last batches." * smoothed,
    )
    return figure


def _points(losses: Losses) -> np.ndarray:
    """Return steps and losses, (points, 2); steps count from 1 where none are given."""
    pairs = [each if isinstance(each, Sequence) else (i, each) for i, each in enumerate(losses, 1)]
    return np.asarray(pairs, dtype=float).reshape(-1, 2)


def _draw(ax: Axes, method: str, points: np.ndarray, name: str, look: style.Look) -> list[Record]:
    """Draw one curve, with its running mean if it is long; return its points."""
    colour, marker = look
    table: list[Record] = [
        {"method": method, "step": int(n), "loss": loss} for n, loss in points.tolist()
    ]
    if len(points) <= SMOOTH:
        ax.plot(*points.T, color=colour, marker=marker, label=name)
        return table
    ax.plot(*points.T, color=colour, alpha=0.35, linewidth=0.9)
    width = max(3, len(points) // 12)
    mean = np.convolve(points[:, 1], np.ones(width) / width, mode="valid")
    ax.plot(points[width - 1 :, 0], mean, color=colour, linewidth=2.2, label=name)
    smoothed = [
        {**row, "running_mean": value}
        for row, value in zip(table[width - 1 :], mean.tolist(), strict=True)
    ]
    return [*table[: width - 1], *smoothed]
