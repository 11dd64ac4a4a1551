"""A figure that knows the numbers it shows, for whoever wants more than the picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from ntk_propulsion.figures import style

Record = Mapping[str, str | float | None]
"""One tidy row of what is drawn: numbers and texts by column."""


@dataclass(frozen=True)
class PairScale:
    """How a heat map of pairs is coloured.

    Attributes:
        scale: What K_P is multiplied by.
        limit: Where the colours end, on both sides of zero.
    """

    scale: float
    limit: float


class Plot(Figure):
    """A figure with its data.

    Attributes:
        rows: What is drawn, tidily; the page offers it as CSV.
        pairs: Where each row is a pair of examples with the entries ``K_F``, ``K_P`` and their
            ``difference``: the page then lets one point at them. None for any other figure.
    """

    def __init__(
        self, rows: Iterable[Record] = (), *, pairs: PairScale | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self.rows: list[Record] = list(rows)
        self.pairs = pairs

    def _repr_png_(self) -> bytes:
        """Show the figure where it is the last line of a notebook's cell, whatever its backend."""
        return style.render(self)
