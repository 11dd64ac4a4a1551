"""Look-ups in tables of plain dictionaries, for what does not take typed ones yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ntk_propulsion.words.estimates import show
from ntk_propulsion.words.names import class_name
from ntk_propulsion.words.numbers import finite

Row = Mapping[str, Any]


def rows(table: Iterable[Row] | None, **where: Any) -> list[Row]:
    """Return the rows of a table whose columns equal what ``where`` says."""
    return [row for row in table or () if all(row.get(k) == v for k, v in where.items())]


def row(table: Iterable[Row] | None, **where: Any) -> Row | None:
    """Return the first such row, or None."""
    return next(iter(rows(table, **where)), None)


def metric(table_row: Row | None, name: str) -> tuple[float | None, float | None, float | None]:
    """Return ``(value, low, high)`` of a metric; None for each number that is missing."""
    found = ((table_row or {}).get("metrics") or {}).get(name) or {}
    return finite(found.get("value")), finite(found.get("low")), finite(found.get("high"))


def interval(table_row: Row | None, name: str) -> str:
    """Write a metric as ``value [low, high]``, or the value alone."""
    value, low, high = metric(table_row, name)
    if low is None or high is None:
        return show(name, value)
    return f"{show(name, value)} [{show(name, low)}, {show(name, high)}]"


def label_name(results: Mapping[str, Any], value: Any) -> str:
    """Return a class label's name; labels may come as names or as indices."""
    return class_name(results["task"].get("labels") or (), value)
