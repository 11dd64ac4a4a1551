"""Heat maps of two kernels and of what separates them, on one colour scale."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from ntk_propulsion import words
from ntk_propulsion.errors import InputError
from ntk_propulsion.figures import style
from ntk_propulsion.figures.labels import Labels
from ntk_propulsion.figures.pairs import CLIP, Pairs
from ntk_propulsion.figures.parts import check_comparable, part_of
from ntk_propulsion.figures.plot import PairScale, Plot
from ntk_propulsion.figures.setting import Setting
from ntk_propulsion.figures.style import plain
from ntk_propulsion.theory.distances import compare_kernels
from ntk_propulsion.theory.estimate import Estimate, Estimates
from ntk_propulsion.theory.inputs import KernelLike, count_outputs, kernel_pair

MOST_PAIRS = 128  # examples up to which the page carries every pair's numbers: some 0.3 MB
SIZE, SMALL = 2.85, 1.65  # inches: the panels' and the paper's picture's side


@style.styled
def heatmaps(
    full: KernelLike,
    other: KernelLike,
    labels: Labels | ArrayLike | None = None,
    *,
    outputs: int | None = None,
    part: str = "all",
    head: Collection[str] = (),
    estimates: Mapping[str, Estimate] | None = None,
    point: str = "",
    setting: Setting | str = "",
) -> Plot:
    """Draw K_F, the best-scaled K_P, their difference, and the raw difference as the paper does.

    The first three share one colour scale, symmetric about zero; the raw ``|K_F - K_P|`` (the
    paper's Fig. 6) has its own. Entries are summed over equal outputs, examples sorted by label.

    Args:
        full: The reference, full fine-tuning's kernel as a rule: a Kernel, or an array (N*O, N*O).
        other: The kernel to hold against it.
        labels: Of the N examples, in the order of the kernels' rows; see `Labels`.
        outputs: O, where the kernels are arrays; 1 by default.
        part: What of the kernels is shown: ``"all"``, ``"without_head"`` or ``"head"``.
        head: Names of the head's modules, to cut Kernels by; arrays are that part already.
        estimates: The distances between the two, as ``other.compare(full)`` gives them with their
            intervals; by default they are computed, without intervals.
        point: Where the kernels were taken, such as ``"theta0"``; said in the title.
        setting: What the caption says that they are of.

    Raises:
        InputError: The kernels cannot be compared, or the labels are not one an example.
    """
    names = tuple(str(getattr(K, "tuning", "")) for K in (full, other))
    check_comparable(full, other)
    count = count_outputs(full, other, outputs=outputs)
    A, B = kernel_pair(part_of(full, part, head), part_of(other, part, head))
    n = len(A) // count
    known = None if labels is None else Labels.of(labels)
    if known is not None and len(known.values) != n:
        raise InputError(f"{len(known.values)} labels for kernels of {n} examples: give one each")
    distances = estimates or _distances(B, A, count)
    scale = distances.get("best_scale", Estimate(None)).value
    order = np.arange(n) if known is None else known.order
    pairs = Pairs.of(A, B, 0.0 if scale is None else scale, order)
    figure = Plot(figsize=(12, 4.85))
    if n <= MOST_PAIRS:
        figure.rows = pairs.rows()
        figure.pairs = PairScale(pairs.scale, pairs.limit)
    figure.set_layout_engine("none")
    symbols = _symbols(*names)
    _common_scale(figure, pairs, known, distances, symbols)
    _as_in_the_paper(figure, pairs, known, distances, symbols)
    style.frame(
        figure,
        _title(names, point, part if head or part != "all" else ""),
        f"{plain(setting)} Each pixel is a pair of examples"
        + (f": the trace over its {count} by {count} outputs." if count > 1 else "."),
    )
    return figure


def _distances(K: KernelLike, K0: KernelLike, outputs: int) -> Estimates:
    found = compare_kernels(K, K0, outputs, norms=("frobenius",))
    return {name: Estimate(value) for name, value in found.items()}


def _symbols(full: str, other: str) -> tuple[str, str]:
    return "K_0" if full not in ("full", "") else "K_F", "K_P" if other == "propulsion" else "K"


def _title(tunings: tuple[str, ...], point: str, part: str) -> str:
    known = [plain(words.tuning(name)) for name in tunings if name]
    said = [
        f"Kernels of {words.listed(known)}" if known else "Two kernels",
        words.POINTS.get(point, point),
        words.PARTS.get(part, part),
    ]
    return ", ".join(filter(None, said))


def _common_scale(
    figure: Figure,
    pairs: Pairs,
    labels: Labels | None,
    distances: Mapping[str, Estimate],
    symbols: tuple[str, str],
) -> None:
    """Draw K_F, s K_P and K_F - s K_P on one scale that is symmetric about zero."""
    first, second = symbols
    limit = pairs.limit
    beyond = int((np.abs(pairs.full) > limit).sum())
    panels = [
        (pairs.full, f"${first}$" + ", full fine-tuning" * (first == "K_F"), ""),
        (
            pairs.scale * pairs.other,
            f"$s\\,{second}$, best scale $s$ = {words.number(pairs.scale)}",
            _measured(distances, "cka"),
        ),
        (
            pairs.difference,
            f"${first} - s\\,{second}$",
            _measured(distances, "best_scale_error"),
        ),
    ]
    for i, (image, title, below) in enumerate(panels):
        ax = _square(figure, 0.75 + 3.1 * i, SIZE)
        picture = ax.imshow(image, cmap=style.DIVERGING, vmin=-limit, vmax=limit)
        ax.set_title(title, pad=14)
        ax.set_xlabel(below, fontsize=9)
        _bands(ax, labels, pairs.order, names=i == 0)
    bar = figure.colorbar(
        picture, cax=_strip(figure, 1.75, 7.05), extend="both", orientation="horizontal"
    )
    bar.set_label(
        f"one scale for all three: ±{words.number(limit)} ({CLIP:g}th percentile of $|{first}|$; "
        f"{beyond} of {pairs.full.size} entries beyond), in output² / parameter²",
        fontsize=9,
    )


def _as_in_the_paper(
    figure: Figure,
    pairs: Pairs,
    labels: Labels | None,
    distances: Mapping[str, Estimate],
    symbols: tuple[str, str],
) -> None:
    """Draw the raw difference, small, on a scale of its own."""
    ax = _square(figure, 10.15, SMALL)
    picture = ax.imshow(np.abs(pairs.full - pairs.other), cmap=style.SEQUENTIAL, vmin=0)
    ax.set_title(f"$|{symbols[0]} - {symbols[1]}|$ raw", pad=14)
    ax.set_xlabel(
        _measured(distances, "relative_frobenius", "\n"),
        fontsize=9,
    )
    _bands(ax, labels, pairs.order, names=False)
    bar = figure.colorbar(picture, cax=_strip(figure, 10.15, SMALL), orientation="horizontal")
    bar.set_label("own scale from 0,\nas in the paper's Fig. 6", fontsize=9)


def _bands(ax: Axes, labels: Labels | None, order: np.ndarray, names: bool) -> None:
    """Draw the labels beside the rows and above the columns, and lines between the classes."""
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    if labels is None:
        if names:
            ax.set_ylabel("examples, as they came", fontsize=9)
        return
    codes, ticks = _codes(labels, order)
    look = {"cmap": "Greys"} if labels.continuous else {"cmap": "Set2", "vmin": 0, "vmax": 7}
    if not labels.continuous:
        for edge in np.flatnonzero(np.diff(codes)) + 0.5:
            ax.axhline(edge, color="black", linewidth=0.8)
            ax.axvline(edge, color="black", linewidth=0.8)
    rows, columns = ax.inset_axes((-0.045, 0, 0.03, 1)), ax.inset_axes((0, 1.015, 1, 0.03))
    for band, image in ((rows, codes[:, None]), (columns, codes[None, :])):
        band.imshow(image, aspect="auto", **look)
        band.set(xticks=[], yticks=[])
        band.grid(False)
        band.spines[:].set_visible(False)
    if names:
        texts = [plain(labels.name(order[round(tick)])[:18]) for tick in ticks]
        turn = 0 if labels.continuous else 90
        rows.set_yticks(ticks, texts, rotation=turn, va="center", fontsize=8.5)
        rows.set_ylabel(f"examples, by {'value' if labels.continuous else 'label'}", fontsize=9)
        rows.tick_params(length=0)


def _codes(labels: Labels, order: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Return a number to colour each example by, (N,) in order, and where labels are named."""
    values = [labels.values[i] for i in order]
    if labels.continuous:
        return np.asarray(values, dtype=float), [0.0, len(values) // 2, len(values) - 1]
    distinct = list(dict.fromkeys(values))
    codes = np.asarray([float(distinct.index(value)) for value in values])
    return codes, [float(np.flatnonzero(codes == c).mean()) for c in range(len(distinct))]


def _measured(distances: Mapping[str, Estimate], name: str, between: str = " ") -> str:
    """Write a distance with its name and, where it has one, its interval."""
    return f"{words.metric_label(name)}{between}{words.estimate(name, distances.get(name))}"


def _square(figure: Figure, left: float, side: float) -> Axes:
    """Add square axes whose top is 0.8 inches below the figure's; all in inches."""
    width, height = figure.get_size_inches()
    return figure.add_axes((left / width, 1 - (0.8 + side) / height, side / width, side / height))


def _strip(figure: Figure, left: float, length: float) -> Axes:
    """Add the axes of a colour bar below the panels; all in inches."""
    width, height = figure.get_size_inches()
    return figure.add_axes((left / width, 0.85 / height, length / width, 0.12 / height))
