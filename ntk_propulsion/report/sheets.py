"""Tables for the page: what a column shows, how it sorts, and the same data as CSV."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ntk_propulsion import words
from ntk_propulsion.report.downloads import csv_address
from ntk_propulsion.theory.distances import DISTANCES

LONG = 40  # characters from which a text cell gets a wide column


@dataclass(frozen=True)
class Column:
    """One column: its heading, where its value is, and how a value is written."""

    title: str
    value: Callable[[words.Row], Any]
    show: Callable[[Any], str] = str
    text: Callable[[words.Row], str] | None = None
    numeric: bool = False


@dataclass(frozen=True)
class Cell:
    """One cell: what is shown, what it sorts by, its CSS class."""

    text: str
    sort: str
    kind: str


@dataclass(frozen=True)
class Sheet:
    """A table as the page's template wants it."""

    name: str
    title: str
    columns: list[Column]
    rows: list[list[Cell]]
    csv: str


def words_column(key: str, title: str | None = None, names: dict[str, str] | None = None) -> Column:
    """Return a column of text, with names for people where given."""
    known = names or {}
    return Column(
        title or key.replace("_", " "),
        lambda row: row.get(key),
        lambda value: "" if value is None else known.get(str(value), str(value)),
    )


def number_column(
    key: str, title: str | None = None, show: Callable[[Any], str] = words.number
) -> Column:
    """Return a column of numbers."""
    heading = title or key.replace("_", " ")
    return Column(heading, lambda row: words.finite(row.get(key)), show, numeric=True)


def metric_columns(table: Iterable[words.Row]) -> list[Column]:
    """Return a column with interval for every metric that occurs, the leading ones first."""
    found = dict.fromkeys(name for row in table for name in row.get("metrics") or ())
    names = [n for n in DISTANCES if n in found] + [n for n in found if n not in DISTANCES]
    return [_metric_column(name) for name in names]


def _metric_column(name: str) -> Column:
    return Column(
        words.metric_label(name),
        lambda row: words.metric(row, name)[0],
        text=lambda row: words.interval(row, name),
        numeric=True,
    )


def sheet(name: str, title: str, columns: list[Column], table: Iterable[words.Row]) -> Sheet:
    """Return a table of rows for the page, with its CSV as a data: address."""
    table = list(table)
    rows = [[_cell(column, row) for column in columns] for row in table]
    return Sheet(name, title, columns, rows, csv_address(table))


def _cell(column: Column, row: words.Row) -> Cell:
    value = column.value(row)
    text = column.text(row) if column.text else column.show(value)
    kind = "n" if column.numeric else "long" if len(text) > LONG else ""
    if column.title == "verdict":
        kind = f"verdict-{text.split()[0]}" if text in ("holds", "fails") else ""
    return Cell(text, "" if value is None else str(value), kind)
