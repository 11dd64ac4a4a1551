"""The figure of kernels' eigenvalues."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from ntk_propulsion import words
from ntk_propulsion.errors import InputError
from ntk_propulsion.figures import style
from ntk_propulsion.figures.parts import parts_by_name
from ntk_propulsion.figures.plot import Plot, Record
from ntk_propulsion.figures.setting import Setting
from ntk_propulsion.figures.style import plain
from ntk_propulsion.theory.inputs import Array, KernelLike
from ntk_propulsion.theory.spectrum import participation_ratio

ROUNDING = 1e-9  # eigenvalues below this share of the largest are rounding
DASHES = ("-", "--", ":", "-.")
PARTS = ("all", "without_head")
MAIN = ("full", "propulsion")  # drawn thick; the others are controls

ByTuning = Mapping[str, KernelLike]


@dataclass(frozen=True, eq=False)
class _Spectrum:
    """Eigenvalues over the trace, largest first, without rounding, of one kernel."""

    point: str
    tuning: str
    rows: int
    shares: Array
    effective_rank: float


@style.styled
def spectra(
    kernels: ByTuning | Mapping[str, ByTuning],
    *,
    head: Collection[str] = (),
    setting: Setting | str = "",
) -> Plot:
    """Draw eigenvalues over the trace, log-log, with and without the head.

    Args:
        kernels: By tuning; or by the point where they were taken, then tuning.
        head: Names of the head's modules; Kernels with ``per_module`` are then shown without too.
        setting: What the caption says that they are of.

    Raises:
        InputError: There is no kernel that is not zero.
    """
    by_part: dict[str, list[_Spectrum]] = {part: [] for part in PARTS}
    for point, tuning, kernel in _listed(kernels):
        for part, matrix in parts_by_name(kernel, head).items():
            if part in PARTS and np.trace(matrix) > 0:
                by_part[part].append(_spectrum(point, tuning, matrix))
    drawn = {part: found for part, found in by_part.items() if found}
    if not drawn:
        raise InputError("there is no kernel to draw the eigenvalues of, or all are zero")
    height = 5.4 + 0.2 * max(map(len, drawn.values()))  # the legends' lines
    figure = Plot(figsize=(6.2 * len(drawn), height))
    for i, (part, found) in enumerate(drawn.items()):
        ax = figure.add_subplot(1, len(drawn), i + 1)
        figure.rows += _draw(ax, part, found)
        ax.set_title(f"{words.PARTS[part]}: " * bool(head) + f"kernels of {found[0].rows} rows")
    style.frame(
        figure,
        "Spectra: how many directions carry each kernel",
        f"{plain(setting)} No units. Eigenvalues below {ROUNDING:g} of the largest are left out "
        "as rounding.",
    )
    return figure


def _listed(
    kernels: ByTuning | Mapping[str, ByTuning],
) -> Iterator[tuple[str, str, KernelLike]]:
    """Yield (point, tuning, kernel)."""
    for name, value in kernels.items():
        if isinstance(value, Mapping):
            yield from ((name, tuning, kernel) for tuning, kernel in value.items())
        else:
            yield "", name, value


def _spectrum(point: str, tuning: str, matrix: Array) -> _Spectrum:
    values = np.linalg.eigvalsh((matrix + matrix.T) / 2)[::-1]
    shares = values[values > ROUNDING * values[0]] / np.trace(matrix)
    return _Spectrum(point, tuning, len(matrix), shares, participation_ratio(matrix))


def _draw(ax: Axes, part: str, spectra: list[_Spectrum]) -> list[Record]:
    """Draw one part of all kernels; return what was drawn."""
    looks = style.tuning_looks(each.tuning for each in spectra)
    points = list(dict.fromkeys(each.point for each in spectra))
    rows: list[Record] = []
    for each in spectra:
        name = plain(words.tuning(each.tuning))
        where = words.POINTS.get(each.point, each.point)
        ax.loglog(
            np.arange(1, len(each.shares) + 1),
            each.shares,
            DASHES[points.index(each.point) % len(DASHES)],
            color=looks[each.tuning][0],
            linewidth=1.8 if each.tuning in MAIN else 1.0,
            label=f"{', '.join(filter(None, (name, where)))}: {words.number(each.effective_rank)}",
        )
        rows += [
            {
                "part": part,
                "point": each.point,
                "tuning": each.tuning,
                "rank": rank,
                "share_of_trace": float(f"{share:.6g}"),
            }
            for rank, share in enumerate(each.shares, 1)
        ]
    ax.set(xlabel="eigenvalue's rank", ylabel="eigenvalue / trace")
    legend = ax.legend(
        title="effective rank tr(K)²/|K|² of",
        title_fontsize=9,
        loc="upper left",
        bbox_to_anchor=(0, -0.13),  # below: lines cross every corner
        borderaxespad=0,
    )
    legend.set_alignment("left")
    return rows
