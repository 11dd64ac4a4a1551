"""Data that a page carries as CSV files: one click saves them, and nothing is fetched."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from ntk_propulsion.errors import plain
from ntk_propulsion.runs.records import Dataclass
from ntk_propulsion.theory.estimate import Estimates

Row = Mapping[str, Any] | Dataclass
"""A row of a table: its columns are the keys, or the fields."""

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula."""


def csv_address(table: Iterable[Row]) -> str:
    """Return a ``data:`` address that holds rows as a CSV file."""
    coded = base64.b64encode(csv_text(table).encode()).decode()
    return f"data:text/csv;charset=utf-8;base64,{coded}"


def csv_text(table: Iterable[Row]) -> str:
    """Write rows as CSV at full precision; nested values become columns or JSON.

    Texts come from data sets: one that a spreadsheet would run as a formula gets an apostrophe.
    """
    flat = [{_inert(k): _inert(v) for k, v in _flat(row).items()} for row in table]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(dict.fromkeys(key for row in flat for key in row)))
    writer.writeheader()
    writer.writerows(flat)
    return buffer.getvalue()


def columns_of(row: Row) -> Mapping[str, Any]:
    """Return a row's values by column, in the order of its fields."""
    if isinstance(row, Mapping):
        return row
    return {each.name: getattr(row, each.name) for each in fields(row)}


def _flat(row: Row) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in columns_of(row).items():
        if key == "metrics":
            flat |= _columns(value or {})
        elif isinstance(value, list | tuple | dict):
            flat[key] = json.dumps(value, default=float)
        else:
            flat[key] = value
    return flat


def _columns(metrics: Estimates) -> dict[str, float | None]:
    columns: dict[str, float | None] = {}
    for name, measured in metrics.items():
        ends = {f"{name}_low": measured.low, f"{name}_high": measured.high}
        columns |= {name: measured.value, **ends}
    return columns


def _inert(value: Any) -> Any:
    """Return a cell that no spreadsheet runs; numbers, also as text, stay as they are."""
    if isinstance(value, str):
        text = plain(value)
        return f"'{text}" if value.startswith(FORMULA) and not _is_number(text) else text
    return float(value) if isinstance(value, float) else value  # numpy's would write its type


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
