"""Columns of a table of dictionaries."""

from __future__ import annotations

from collections.abc import Iterable

from ntk_propulsion.figures.plot import Plot, Record
from ntk_propulsion.words import Row

__all__ = ["Plot", "chosen"]


def chosen(table: Iterable[Row], *keys: str) -> list[Record]:
    """Return a table's rows with these columns only, those that a row has."""
    return [{key: row[key] for key in keys if key in row} for row in table]
