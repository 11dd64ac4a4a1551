"""Heat maps of two kernels and of what separates them, on one colour scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ntk_propulsion import words
from ntk_propulsion.figures import style
from ntk_propulsion.figures.before.plot import Plot
from ntk_propulsion.figures.plot import PairScale
from ntk_propulsion.figures.style import plain

CLIP = 99.0  # percentile of |K_F| that ends the colour scale: one extreme text hides no other
MOST_PAIRS = 128  # examples up to which the page carries every pair's numbers: some 0.3 MB
SIZE, SMALL = 2.85, 1.65  # inches: the panels' and the paper's picture's side


def example_order(results: dict[str, Any]) -> np.ndarray:
    """Return the order of examples by label: ``(N,)`` indices, stable within a label."""
    labels = _labels(results)
    if any(isinstance(label, str) for label in labels):
        labels = [str(label) for label in labels]
    return np.argsort(np.asarray(labels), kind="stable")


def per_pair(kernel: np.ndarray, n: int) -> np.ndarray:
    """Sum a kernel's ``(N*O, N*O)`` over equal outputs: the ``(N, N)`` trace per example pair."""
    outputs = len(kernel) // n
    return np.einsum("iojo->ij", kernel.reshape(n, outputs, n, outputs))


@dataclass(frozen=True)
class Pairs:
    """Two kernels per pair of examples, as the heat maps show them.

    Attributes:
        full: K_F by pair, (N, N), examples in the order of `example_order`.
        other: K_P likewise.
        scale: What K_P is multiplied by to come nearest to K_F.
        limit: Where the colours end, on both sides of zero.
        order: The row in the kernels of each example, (N,).
    """

    full: np.ndarray
    other: np.ndarray
    scale: float
    limit: float
    order: np.ndarray

    @property
    def difference(self) -> np.ndarray:
        """K_F - s K_P, (N, N)."""
        return self.full - self.scale * self.other

    def rows(self) -> list[dict[str, Any]]:
        """Return each pair once (kernels are symmetric), to six digits."""
        panels = {"K_F": self.full, "K_P": self.other, "difference": self.difference}
        return [
            {"first": int(self.order[i]), "second": int(self.order[j])}
            | {name: float(f"{panel[i, j]:.6g}") for name, panel in panels.items()}
            for i, j in zip(*np.triu_indices(len(self.order)), strict=True)
        ]


def pairs_of(
    results: dict[str, Any],
    kernels: dict[str, np.ndarray],
    point: str,
    tuning: str,
    part: str,
) -> Pairs:
    """Return full fine-tuning's kernel and another's by pairs of examples, sorted by label.

    The scale is the one that was measured, or else the best one for these entries.
    """
    n = len(results["examples"])
    order = example_order(results)
    full, other = (
        per_pair(kernels[f"{point}/{t}/{part}"], n)[np.ix_(order, order)] for t in ("full", tuning)
    )
    found = words.row(results["distances"], point=point, tuning=tuning, part=part)
    scale = words.metric(found, "best_scale")[0]
    if scale is None:
        scale = float((full * other).sum() / max((other * other).sum(), np.finfo(float).tiny))
    limit = float(np.percentile(np.abs(full), CLIP)) or 1.0
    return Pairs(full, other, scale, limit, order)


@style.styled
def kernel_heatmaps(
    results: dict[str, Any],
    kernels: dict[str, np.ndarray],
    point: str = "theta0",
    tuning: str = "propulsion",
    part: str = "all",
) -> Figure:
    """Draw K_F, the best-scaled K_P, their difference, and the raw difference as the paper does.

    The first three share one colour scale, symmetric about zero; the raw ``|K_F - K_P|`` (the
    paper's Fig. 6) has its own. Entries are summed over equal outputs, examples sorted by label.

    Args:
        results: The experiment's results.
        kernels: ``{"point/tuning/part": (N*O, N*O)}``.
        point: The parameters at which the kernels were taken.
        tuning: What is compared with full fine-tuning.
        part: ``all``, ``without_head`` or ``head``.
    """
    n = len(results["examples"])
    pairs = pairs_of(results, kernels, point, tuning, part)
    found = words.row(results["distances"], point=point, tuning=tuning, part=part)
    figure = Plot(figsize=(12, 4.85))
    if n <= MOST_PAIRS:
        figure.rows = pairs.rows()
        figure.pairs = PairScale(pairs.scale, pairs.limit)
    figure.set_layout_engine("none")
    symbol = "K_P" if tuning == "propulsion" else "K"
    _common_scale(figure, results, found, pairs, symbol)
    _as_in_the_paper(figure, results, found, pairs, symbol)
    outputs = len(kernels[f"{point}/full/{part}"]) // n
    style.frame(
        figure,
        f"Kernels of full fine-tuning and {plain(words.tuning(tuning))}, "
        f"{words.POINTS.get(point, point)}, {words.PARTS.get(part, part)}",
        f"{style.setting(results)} Each pixel is a pair of examples"
        + (f": the trace over its {outputs} by {outputs} outputs." if outputs > 1 else "."),
    )
    return figure


def _common_scale(
    figure: Figure,
    results: dict[str, Any],
    found: words.Row | None,
    pairs: Pairs,
    symbol: str,
) -> None:
    """Draw K_F, s K_P and K_F - s K_P on one scale that is symmetric about zero."""
    limit = pairs.limit
    beyond = int((np.abs(pairs.full) > limit).sum())
    panels = [
        (pairs.full, "$K_F$, full fine-tuning", ""),
        (
            pairs.scale * pairs.other,
            f"$s\\,{symbol}$, best scale $s$ = {words.number(pairs.scale)}",
            f"CKA {words.interval(found, 'cka')}",
        ),
        (
            pairs.difference,
            f"$K_F - s\\,{symbol}$",
            f"best-scale error {words.interval(found, 'best_scale_error')}",
        ),
    ]
    for i, (image, title, below) in enumerate(panels):
        ax = _square(figure, 0.75 + 3.1 * i, SIZE)
        picture = ax.imshow(image, cmap=style.DIVERGING, vmin=-limit, vmax=limit)
        ax.set_title(title, pad=14)
        ax.set_xlabel(below, fontsize=9)
        _bands(ax, results, names=i == 0)
    bar = figure.colorbar(
        picture, cax=_strip(figure, 1.75, 7.05), extend="both", orientation="horizontal"
    )
    bar.set_label(
        f"one scale for all three: ±{words.number(limit)} (99th percentile of $|K_F|$; "
        f"{beyond} of {pairs.full.size} entries beyond), in output² / parameter²",
        fontsize=9,
    )


def _as_in_the_paper(
    figure: Figure,
    results: dict[str, Any],
    found: words.Row | None,
    pairs: Pairs,
    symbol: str,
) -> None:
    """Draw the raw difference, small, on a scale of its own."""
    ax = _square(figure, 10.15, SMALL)
    picture = ax.imshow(np.abs(pairs.full - pairs.other), cmap=style.SEQUENTIAL, vmin=0)
    ax.set_title(f"$|K_F - {symbol}|$ raw", pad=14)
    ax.set_xlabel(f"raw error\n{words.interval(found, 'relative_frobenius')}", fontsize=9)
    _bands(ax, results, names=False)
    bar = figure.colorbar(picture, cax=_strip(figure, 10.15, SMALL), orientation="horizontal")
    bar.set_label("own scale from 0,\nas in the paper's Fig. 6", fontsize=9)


def _labels(results: dict[str, Any]) -> list[Any]:
    return [e["label"] for e in sorted(results["examples"], key=lambda e: e["row"])]


def _bands(ax: Axes, results: dict[str, Any], names: bool) -> None:
    """Draw the labels beside the rows and above the columns, and lines between the classes."""
    every = _labels(results)
    labels = [every[i] for i in example_order(results)]
    distinct = list(dict.fromkeys(labels))
    regression = results["task"]["kind"] == "regression"
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    if regression:
        codes = np.asarray(labels, dtype=float)
        look: dict[str, Any] = {"cmap": "Greys"}
        ticks = [0.0, len(labels) // 2, len(labels) - 1]
        texts = [words.number(labels[int(i)]) for i in ticks]
    else:
        codes = np.asarray([float(distinct.index(label)) for label in labels])
        look = {"cmap": "Set2", "vmin": 0, "vmax": 7}
        where = [np.flatnonzero(codes == c) for c in range(len(distinct))]
        ticks = [float(w.mean()) for w in where]
        texts = [plain(words.label_name(results, label)[:18]) for label in distinct]
        for w in where[1:]:
            ax.axhline(w[0] - 0.5, color="black", linewidth=0.8)
            ax.axvline(w[0] - 0.5, color="black", linewidth=0.8)
    rows, columns = ax.inset_axes((-0.045, 0, 0.03, 1)), ax.inset_axes((0, 1.015, 1, 0.03))
    for band, image in ((rows, codes[:, None]), (columns, codes[None, :])):
        band.imshow(image, aspect="auto", **look)
        band.set(xticks=[], yticks=[])
        band.grid(False)
        band.spines[:].set_visible(False)
    if names:
        rows.set_yticks(ticks, texts, rotation=0 if regression else 90, va="center", fontsize=8.5)
        rows.set_ylabel(f"examples, by {'value' if regression else 'label'}", fontsize=9)
        rows.tick_params(length=0)


def _square(figure: Figure, left: float, side: float) -> Axes:
    """Add square axes whose top is 0.8 inches below the figure's; all in inches."""
    width, height = figure.get_size_inches()
    return figure.add_axes((left / width, 1 - (0.8 + side) / height, side / width, side / height))


def _strip(figure: Figure, left: float, length: float) -> Axes:
    """Add the axes of a colour bar below the panels; all in inches."""
    width, height = figure.get_size_inches()
    return figure.add_axes((left / width, 0.85 / height, length / width, 0.12 / height))
