"""A figure that knows the numbers it shows, for whoever wants more than the picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from matplotlib.figure import Figure

from ntk_propulsion.words import Row


class Plot(Figure):
    """A figure with its data.

    Attributes:
        rows: What is drawn, tidily; the page offers it as CSV.
        pairs: ``{"scale": s, "limit": end of the colours}`` where each row is a pair of examples
            with the entries ``K_F``, ``K_P`` and their ``difference``: the page then lets one
            point at them. None for any other figure.
    """

    def __init__(
        self,
        rows: Iterable[Row] = (),
        *,
        pairs: Mapping[str, float] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.rows: list[Row] = list(rows)
        self.pairs = pairs


def chosen(table: Iterable[Row], *keys: str) -> list[Row]:
    """Return a table's rows with these columns only, those that a row has."""
    return [{key: row[key] for key in keys if key in row} for row in table]
