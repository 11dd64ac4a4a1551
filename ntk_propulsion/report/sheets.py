"""Tables for the page: what a column shows, how it sorts, and the same data as CSV."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ntk_propulsion import words
from ntk_propulsion.report.downloads import Row, csv_address
from ntk_propulsion.theory.distances import DISTANCES
from ntk_propulsion.theory.estimate import Estimate

LONG = 40  # characters from which a text cell gets a wide column


@dataclass(frozen=True)
class Column:
    """One column: its heading, where a row has its value, and how a value is written.

    Attributes:
        title: The heading.
        value: Takes it from a row: what the column sorts by.
        show: Writes the value.
        text: Writes it from the whole row instead, where the value alone says too little.
        numeric: Whether it is aligned as numbers are.
    """

    title: str
    value: Callable[[Any], Any]
    show: Callable[[Any], str] = str
    text: Callable[[Any], str] | None = None
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
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    csv: str


def field_of(row: Row, name: str) -> Any:
    """Return a field of a dataclass, or a value of a mapping, None where that has none."""
    return row.get(name) if isinstance(row, Mapping) else getattr(row, name)


def words_column(
    field: str, title: str | None = None, names: Mapping[str, str] | None = None
) -> Column:
    """Return a column of text, with names for people where given."""
    known = names or {}
    return _text_column(field, title, lambda value: known.get(value, value))


def tuning_column(field: str, title: str | None = None) -> Column:
    """Return a column of tunings by their names for people; a sum's is the sum of the names."""
    return _text_column(field, title, words.tuning)


def _text_column(field: str, title: str | None, named: Callable[[str], str]) -> Column:
    return Column(
        title or field.replace("_", " "),
        lambda row: field_of(row, field),
        lambda value: "" if value is None else named(str(value)),
    )


def number_column(
    field: str, title: str | None = None, show: Callable[[float | None], str] = words.number
) -> Column:
    """Return a column of numbers."""
    heading = title or field.replace("_", " ")
    return Column(heading, lambda row: words.finite(field_of(row, field)), show, numeric=True)


def metric_columns(table: Iterable[Row]) -> list[Column]:
    """Return a column with interval for every distance that occurs, the leading ones first."""
    found = dict.fromkeys(name for row in table for name in field_of(row, "metrics") or ())
    names = [n for n in DISTANCES if n in found] + [n for n in found if n not in DISTANCES]
    return [_metric_column(name) for name in names]


def _metric_column(name: str) -> Column:
    def measured(row: Row) -> Estimate:
        return (field_of(row, "metrics") or {}).get(name) or Estimate(None)

    return Column(
        words.metric_label(name),
        lambda row: words.finite(measured(row).value),
        text=lambda row: words.estimate(name, measured(row)),
        numeric=True,
    )


def sheet(name: str, title: str, columns: Sequence[Column], table: Iterable[Row]) -> Sheet:
    """Return a table of rows for the page, with its CSV as a data: address.

    Args:
        name: Of the CSV file.
        title: Above the table.
        columns: What is shown; the CSV holds every field.
        table: Its rows, dataclasses or mappings.
    """
    table = list(table)
    rows = [[_cell(column, row) for column in columns] for row in table]
    return Sheet(name, title, columns, rows, csv_address(table))


def _cell(column: Column, row: Row) -> Cell:
    value = column.value(row)
    text = column.text(row) if column.text else column.show(value)
    kind = "n" if column.numeric else "long" if len(text) > LONG else ""
    if column.title == "verdict":
        kind = f"verdict-{text.split()[0]}" if text in ("holds", "fails") else ""
    return Cell(text, "" if value is None else str(value), kind)
