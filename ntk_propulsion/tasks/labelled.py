"""Labelled examples from the rows of a table, and the task that they tell of themselves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ntk_propulsion.errors import InputError, unknown
from ntk_propulsion.tasks.draws import hold_out
from ntk_propulsion.tasks.kinds import KINDS, Kind
from ntk_propulsion.tasks.source import Request
from ntk_propulsion.tasks.tables import Row
from ntk_propulsion.tasks.task import Example, Task


@dataclass(frozen=True)
class Columns:
    """Which columns to read.

    Attributes:
        text: Of the texts.
        pair: Of the second texts, if there are any.
        label: Of the labels.
        classes: Class names by what stands in the label column; None if they stand there.
    """

    text: str
    pair: str | None
    label: str
    classes: Mapping[str, str] | None = None


class Table(NamedTuple):
    """Numbered rows, and where they stand, in words."""

    rows: Sequence[tuple[int, Row]]
    where: str


def labelled(table: Table, columns: Columns, labels: Sequence[str]) -> tuple[Example, ...]:
    """Return a table's rows as examples.

    Args:
        table: The rows.
        columns: Which of their columns to read.
        labels: Names of the classes, in order; empty for a regression.

    Raises:
        InputError: There are no rows, a column or a label is missing, or a label is none of the
            classes, or no finite number in a regression.
    """
    _check_columns(table, columns)
    numbers = {label: i for i, label in enumerate(labels)}
    return tuple(
        Example(
            index,
            str(row[columns.text] or ""),
            None if columns.pair is None else str(row[columns.pair] or ""),
            _label(_label_text(row, columns, where), columns, numbers, where),
        )
        for index, row, where in _with_places(table)
    )


def inferred_task(request: Request, tables: Sequence[Table], source: str) -> Task:
    """Return the task of one or two tables, train and test, whose kind and classes the labels tell.

    Args:
        request: Names the columns; its kind, if given, settles the task's.
        tables: Of one table, a seeded fifth is held out.
        source: Where they come from, in words.

    Raises:
        InputError: As `labelled`, or there is only one class, or too many.
    """
    columns = Columns(request.text_column, request.pair_column, request.label_column)
    for table in tables:
        _check_columns(table, columns)
    values = [
        _label_text(row, columns, where)
        for table in tables
        for _, row, where in _with_places(table)
    ]
    kind = request.kind or _infer_kind(values)
    labels = _class_names(values, request.name) if kind == "classification" else ()
    splits = [labelled(table, columns, labels) for table in tables]
    train, test = splits if len(splits) == 2 else hold_out(splits[0], kind, seed=request.seed)
    return Task(request.name, kind, labels, train, test, KINDS[kind].metric, source)


def _with_places(table: Table) -> Iterable[tuple[int, Row, str]]:
    """Yield each row with its number and its place in words."""
    for index, row in table.rows:
        yield index, row, f"{table.where}, row {index} (counted from 0)"


def _check_columns(table: Table, columns: Columns) -> None:
    if not table.rows:
        raise InputError(f"{table.where} has no rows")
    _, first = table.rows[0]
    for column in (columns.text, columns.pair, columns.label):
        if column is not None and column not in first:
            raise unknown(f"column of {table.where}:", column, first)


def _infer_kind(values: Sequence[str]) -> Kind:
    numbers = [_number(value) for value in values]
    fractions = all(math.isfinite(x) for x in numbers) and any(x % 1 for x in numbers)
    many = len(set(numbers)) > min(10, len(numbers) / 2)
    return "regression" if fractions and many else "classification"


def _class_names(values: Iterable[str], name: str) -> tuple[str, ...]:
    different = set(values)
    if not 2 <= len(different) <= 1000:
        raise InputError(
            f"{name} has {len(different)} different labels: a classification needs 2 to 1000 "
            "(choose another label column, or say that the task is a regression)"
        )
    numeric = all(math.isfinite(_number(value)) for value in different)
    return tuple(sorted(different, key=_number if numeric else str))


def _label_text(row: Row, columns: Columns, where: str) -> str:
    """Return the label as text, whole numbers without a decimal point (1.0 and 1 are one class)."""
    value = row.get(columns.label)
    text = "" if value is None else str(value).strip()
    if text == "" or text.lower() == "nan":
        raise InputError(f"{where}: no label in column {columns.label!r}")
    number = _number(text)
    return str(int(number)) if number.is_integer() else text


def _label(text: str, columns: Columns, numbers: Mapping[str, int], where: str) -> int | float:
    if numbers:
        name = columns.classes.get(text, "") if columns.classes else text
        if name not in numbers:
            known = ", ".join(columns.classes or numbers)
            raise InputError(f"{where}: label {text!r} is none of {known}")
        return numbers[name]
    number = _number(text)
    if not math.isfinite(number):
        raise InputError(f"{where}: label {text!r} is not a finite number")
    return number


def _number(text: str) -> float:
    """Return the number that a text writes, NaN if it writes none."""
    try:
        return float(text)
    except ValueError:
        return math.nan
