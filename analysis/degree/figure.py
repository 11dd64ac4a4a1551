"""Paths apart over steps, and metric and loss by degree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from analysis.degree.measurements import APART, FIXED, MATCHED, WINDOW, Settings
from analysis.fixtures import grid
from analysis.framework.tables import Row
from ntk_propulsion.figures import style


def draw(rows: Sequence[Row], settings: Settings) -> Mapping[str, Figure]:
    """Draw the paths' distances over steps, and metric and loss by degree."""
    return {"figure": _figure(rows, settings)}


@style.styled
def _figure(rows: Sequence[Row], settings: Settings) -> Figure:
    figure = Figure(figsize=(11, 8.4))
    (sgd, adam), (metric, loss) = figure.subplots(2, 2)
    adam.sharey(sgd)
    _draw_paths(sgd, rows, "sgd", "(k, lr) against (1, $k^2$ lr), SGD", "{:g} of stable lr")
    _draw_paths(
        adam, rows, "adam", "(k, lr) against (1, k lr), Adam", f"lr {{:g}} at k = {settings.degree}"
    )
    sgd.set_ylabel("$|f_k - f_1|\\ /\\ |f_1 - f_0|$: outputs apart")
    done = [row for row in rows if row["kind"] == "training"]
    _draw_degrees(metric, done, "metric")
    before = float(np.mean([row["metric_before"] for row in done]))
    metric.axhline(before, color=style.GREY, linestyle="--", linewidth=1, label="before training")
    metric.set_ylabel(f"{done[0]['metric_name']} after {settings.steps} steps")
    metric.legend()
    _draw_degrees(loss, done, "loss")
    still = [row for row in rows if row.get("configuration") == "untrained"]
    last = [row["loss"] for row in still if row["step"] > settings.steps - WINDOW]
    loss.axhline(
        float(np.mean(last)), color=style.GREY, linestyle="--", linewidth=1, label="untrained"
    )
    loss.set_ylabel(f"training loss, mean of steps {max(1, settings.steps - WINDOW + 1)} on")
    loss.legend()
    style.frame(
        figure,
        "The degree k: a step size, and what is more than that",
        f"{grid.about(done, settings)}. Above: full batch, one draw of N examples; distance of the "
        f"outputs over the change of degree 1's; above the grey line ({APART:g}) they count as "
        "apart. Below: dots are seeds, lines their means (broken where a run diverged); matched: "
        f"learning rate x {settings.degree} / k.",
    )
    return figure


def _draw_paths(ax: Any, rows: Sequence[Row], optimiser: str, title: str, label: str) -> None:
    """Draw a line for each degree (colour) and rate (dashes)."""
    own = [
        row
        for row in rows
        if row["kind"] == "path" and row["optimiser"] == optimiser and row["degree"] > 1
    ]
    looks = style.appearance(f"k = {row['degree']}" for row in own)
    dashes = dict(zip(dict.fromkeys(row["rate"] for row in own), _dashes(), strict=False))
    for name, (colour, _) in looks.items():
        ax.plot([], [], color=colour, label=name)
    for rate, dash in dashes.items():
        ax.plot([], [], color=style.GREY, linestyle=dash, label=label.format(rate))
        for name, (colour, _) in looks.items():
            line = [r for r in own if f"k = {r['degree']}" == name and r["rate"] == rate]
            values = [row["apart"] for row in line]
            ax.plot([row["step"] for row in line], values, dash, color=colour)
    ax.axhline(APART, color=style.GREY, linewidth=1)
    ax.set_yscale("log")
    ax.set_title(title)
    ax.set_xlabel("step")
    ax.xaxis.get_major_locator().set_params(integer=True)
    if own:
        ax.legend(ncols=2)


def _dashes() -> Iterator[Any]:
    yield from ("-", "--", ":", "-.")
    for dots in range(2, 9):
        yield (0, (5, 1, *(1, 1) * dots))


def _draw_degrees(ax: Any, done: Sequence[Row], column: str) -> None:
    """Draw a column by degree, at the fixed and at the matched rate."""
    degrees = list(dict.fromkeys(row["degree"] for row in done))
    places = np.arange(len(degrees))
    for rate, colour, marker, shift in (
        (FIXED, style.GREEN, "D", -0.08),
        (MATCHED, style.PURPLE, "v", 0.08),
    ):
        values = grid.by_configuration([row for row in done if row["rate"] == rate], column)
        table = np.stack(list(values.values()))
        for seed in range(table.shape[1]):
            ax.plot(places + shift, table[:, seed], marker, color=colour, alpha=0.5, markersize=5)
        ax.plot(places + shift, table.mean(axis=1), color=colour, label=f"learning rate {rate}")
    ax.set_xticks(places, [str(degree) for degree in degrees])
    ax.set_xlabel("degree k")
