"""Tidy tables of measurements: rows and their arrays, into files and back.

A row is a measurement under names. One that holds an ``array`` (a kernel for a heat map, of a
``name``) goes to ``arrays.npz`` instead of the table.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ntk_propulsion.errors import InputError
from ntk_propulsion.runs.files import write_atomically

Row = dict[str, Any]
TABLE, ARRAYS = "table.csv", "arrays.npz"
DIGITS = 6  # more than any of these measurements has


def where(rows: Iterable[Row], **values: Any) -> list[Row]:
    """Return the rows that have all these values."""
    return [row for row in rows if all(row.get(key) == value for key, value in values.items())]


def grouped(rows: Iterable[Row], *keys: str) -> dict[tuple[Any, ...], list[Row]]:
    """Return rows by their values of keys, in order of appearance."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row.get(key) for key in keys), []).append(row)
    return found


def table_of(rows: Iterable[Row]) -> pd.DataFrame:
    """Return rows as a table, a column for every key that any has, in order of appearance.

    Rows that hold an array are left out; what a row does not have is missing in the table.
    """
    return pd.DataFrame([row for row in rows if "array" not in row])


def arrays_of(rows: Iterable[Row]) -> dict[str, np.ndarray]:
    """Return the arrays that rows hold, by name, in single precision."""
    return {row["name"]: np.asarray(row["array"], np.float32) for row in rows if "array" in row}


def write_rows(rows: Sequence[Row], folder: Path) -> None:
    """Write the table, and the arrays if there are any.

    Texts stand in quotes, numbers do not, so that `load_rows` reads back what was written.
    """
    short = [
        {key: _short(value) for key, value in row.items()} for row in rows if "array" not in row
    ]
    table = pd.DataFrame(short, dtype=object)  # whole numbers stay whole beside missing ones
    text = table.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    write_atomically(folder / TABLE, text)
    if arrays := arrays_of(rows):
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
        write_atomically(folder / ARRAYS, content.getvalue())


def load_rows(folder: Path) -> list[Row]:
    """Return the rows of a finished study, those with arrays at the end.

    A measurement that a row does not have is None.

    Raises:
        InputError: The folder holds no whole table.
    """
    path = folder / TABLE
    try:
        table = pd.read_csv(
            path, engine="python", quoting=csv.QUOTE_NONNUMERIC, keep_default_na=False
        )
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise InputError(f"{path} is missing or damaged: run the study anew") from error
    records = table.astype(object).to_dict("records")
    rows = [{str(key): _typed(value) for key, value in row.items()} for row in records]
    if (folder / ARRAYS).is_file():
        with np.load(folder / ARRAYS) as arrays:
            rows += [{"name": name, "array": arrays[name]} for name in arrays.files]
    return rows


def _short(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value)
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _typed(value: Any) -> Any:
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    return {"": None, "True": True, "False": False}.get(value, value)
