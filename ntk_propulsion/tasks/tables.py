"""Rows of CSV, TSV and JSONL files, numbered from 0 after the header."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ntk_propulsion.errors import InputError

Row = Mapping[str, Any]
SUFFIXES = (".csv", ".tsv", ".jsonl")


def read_file(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield the rows of a file by its suffix.

    Raises:
        InputError: If the file cannot be read, or a row is malformed.
    """
    readers = {".csv": read_csv, ".tsv": read_tsv, ".jsonl": read_jsonl}
    if path.suffix not in readers:
        raise InputError(f"{path}: a data file ends in {', '.join(SUFFIXES)}")
    return readers[path.suffix](path)


def _lines(path: Path) -> Iterator[str]:
    """Yield a UTF-8 file's lines without their ends; only a line feed ends a line."""
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for line in file:
                yield line.rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error


def read_tsv(path: Path, header: Sequence[str] | None = None) -> Iterator[tuple[int, Row]]:
    """Yield the rows of a tab-separated file; quotes are plain, columns past the header drop."""
    lines = _lines(path)
    names = list(header) if header else next(lines, "").split("\t")
    for index, line in enumerate(lines):
        if not line:
            continue
        fields = line.split("\t")
        if len(fields) < len(names):
            raise InputError(
                f"{path}, row {index} (counted from 0): {len(fields)} columns, "
                f"but {len(names)} are needed"
            )
        yield index, dict(zip(names, fields, strict=False))


def read_csv(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield the rows of a comma-separated file with a header."""
    csv.field_size_limit(sys.maxsize)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from enumerate(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _unreadable(path, error) from error


def read_jsonl(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield the rows of a file that holds one JSON object a line."""
    for index, line in enumerate(_lines(path)):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, row {index} (counted from 0): not JSON ({error})") from error
        if not isinstance(row, dict):
            raise InputError(f"{path}, row {index} (counted from 0): not a JSON object")
        yield index, row


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text or not a CSV file"
    return InputError(f"cannot read {path}: {reason}")
