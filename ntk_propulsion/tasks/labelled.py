"""Labelled examples from the rows of a table, and the task that they tell of themselves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NamedTuple

from ntk_propulsion.errors import InputError, shown, unknown
from ntk_propulsion.tasks.draws import hold_out
from ntk_propulsion.tasks.kinds import KINDS, Kind
from ntk_propulsion.tasks.labels import in_order, label_text, number_of
from ntk_propulsion.tasks.source import Request
from ntk_propulsion.tasks.tables import Row, named, row_of
from ntk_propulsion.tasks.task import Example, Task


@dataclass(frozen=True)
class Columns:
    """Which columns to read.

    Attributes:
        text: Of the texts.
        pair: Of the second texts, if there are any.
        label: Of the labels.
        classes: Class names by what stands in the label column; None if they stand there.
        bounds: The least and the largest target of a regression, if they are known.
    """

    text: str
    pair: str | None
    label: str
    classes: Mapping[str, str] | None = None
    bounds: tuple[float, float] | None = None


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
        InputError: There are no rows, a column or a label is missing, a text or label is none, or
            a label is none of the classes, or no finite number in a regression.
    """
    return _examples(_read(table, columns), columns, labels)


def inferred_task(request: Request, tables: Sequence[Table], source: str) -> Task:
    """Return the task of one or two tables, train and test, whose kind and classes the labels tell.

    Args:
        request: Names the columns; its kind, if given, settles the task's.
        tables: Of one table, a seeded fifth is held out.
        source: Where they come from, in words.

    Raises:
        InputError: As `labelled`, or there is only one class, or too many, or the test's labels are
            not those of the train split.
    """
    columns = Columns(request.text_column, request.pair_column, request.label_column)
    if columns.label in (columns.text, columns.pair):
        raise InputError(f"column {shown(columns.label)} cannot hold both texts and labels")
    read = [_read(table, columns) for table in tables]
    kind = request.kind or _infer_kind([row for rows in read for row in rows])
    # Of the train split alone: no model learns a class that only the test has.
    labels = _class_names(read[0], request.name) if kind == "classification" else ()
    splits = [_examples(rows, columns, labels) for rows in read]
    train, test = splits if len(splits) == 2 else hold_out(splits[0], kind, seed=request.seed)
    if kind == "regression" and len(splits) == 2:
        _check_withheld(train, test, tables[1])
    return Task(request.name, kind, labels, train, test, KINDS[kind].metric, source)


@dataclass(frozen=True)
class _Read:
    """What was read of a row: its label is still as it is written."""

    where: str
    index: int
    text: str
    pair: str | None
    label: str


def _examples(
    rows: Sequence[_Read], columns: Columns, labels: Sequence[str]
) -> tuple[Example, ...]:
    numbers = {label: i for i, label in enumerate(labels)}
    return tuple(
        Example(row.index, row.text, row.pair, _label(row, columns, numbers)) for row in rows
    )


def _read(table: Table, columns: Columns) -> list[_Read]:
    """Return what stands in a table's rows."""
    if not table.rows:
        raise InputError(f"{named(table.where)} has no rows")
    found = []
    for index, row in table.rows:
        where = row_of(table.where, index)
        for column in (columns.text, columns.pair, columns.label):
            if column is not None and column not in row:
                raise _unknown_column(column, row, where)
        try:
            label = label_text(row[columns.label])
        except ValueError as error:
            raise InputError(f"{where}: {error}") from None
        if not label:
            raise InputError(f"{where}: no label in column {shown(columns.label)}")
        pair = None if columns.pair is None else _text(row, columns.pair, where)
        found.append(_Read(where, index, _text(row, columns.text, where), pair, label))
    return found


def _unknown_column(column: str, row: Row, where: str) -> InputError:
    several = list(row)[:10_000]
    names = [name if name.isprintable() and len(name) < 80 else shown(name) for name in several]
    if len(names) > 20:
        names = [*get_close_matches(column[:100], names, cutoff=0.5), *names[:20], "..."]
    return InputError(f"{where}: {unknown('column', column, names)}")


def _text(row: Row, column: str, where: str) -> str:
    """Return a text, empty where it is missing; what is drawn must not be empty."""
    value = row[column]
    if value is None:
        return ""
    if not isinstance(value, str):
        kind = type(value).__name__
        raise InputError(f"{where}: column {shown(column)} holds a value of type {kind}, no text")
    text = str(value)
    if "\0" in text or not _is_unicode(text):
        what = "a NUL character" if "\0" in text else "half a surrogate pair"
        raise InputError(f"{where}: column {shown(column)} holds {what}, which is no text")
    return text


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _infer_kind(rows: Sequence[_Read]) -> Kind:
    every = [number_of(row.label) for row in rows]
    _check_finite(rows)
    numbers = [x for x in every if math.isfinite(x)]
    fractions = any(x % 1 for x in numbers)
    many = len(set(numbers)) > min(10, len(numbers) / 2)
    words = len(every) - len(numbers)
    if fractions and many and 0 < words < len(every) / 10:
        # A few gaps in a column of targets (N/A, ?, 1_5) must not make each target a class.
        raise next(_not_finite(row) for row in rows if not math.isfinite(number_of(row.label)))
    return "regression" if fractions and many and not words else "classification"


def _check_finite(rows: Sequence[_Read]) -> None:
    """Refuse an infinite number among labels that are all numbers; among words it is a word."""
    numbers = [number_of(row.label) for row in rows]
    if any(math.isnan(x) for x in numbers):
        return
    for row, number in zip(rows, numbers, strict=True):
        if math.isinf(number):
            raise _not_finite(row)


_WITHHELD = "which stands where labels are withheld: test on a split that has them"


def _check_withheld(train: Sequence[Example], test: Sequence[Example], table: Table) -> None:
    """Refuse targets of -1 in a test split, where no target of the train split is negative."""
    withheld = next((e.index for e in test if e.label == -1), None)
    if withheld is not None and all(e.label >= 0 for e in train):
        raise InputError(f"{row_of(table.where, withheld)}: label '-1', {_WITHHELD}")


def _class_names(rows: Sequence[_Read], name: str) -> tuple[str, ...]:
    _check_finite(rows)
    names = in_order(row.label for row in rows)
    if not 2 <= len(names) <= 1000:
        raise InputError(
            f"{named(name)} has {len(names)} different labels: a classification needs 2 to 1000 "
            "(choose another label column, or say that the task is a regression)"
        )
    return names


def _label(row: _Read, columns: Columns, numbers: Mapping[str, int]) -> int | float:
    text, where = row.label, row.where
    if numbers:
        name = columns.classes.get(text, "") if columns.classes else text
        if name not in numbers:
            known = list(columns.classes or numbers)
            listed = ", ".join([*known[:10], *["..."] * (len(known) > 10)])
            hint = f", {_WITHHELD}" if text == "-1" else ""
            raise InputError(f"{where}: label {shown(text)} is none of {listed}{hint}")
        return numbers[name]
    number = number_of(text)
    if not math.isfinite(number):
        raise _not_finite(row)
    least, most = columns.bounds or (-math.inf, math.inf)
    if not least <= number <= most:
        raise InputError(f"{where}: label {shown(text)} is not from {least:g} to {most:g}")
    return number


def _not_finite(row: _Read) -> InputError:
    return InputError(f"{row.where}: label {shown(row.label)} is not a finite number")
