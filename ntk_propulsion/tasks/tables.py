"""Rows of CSV, TSV and JSONL files, numbered from 0 after the header.

A row is read as it is written or refused with its number: a text that an unquoted comma cuts, a
column that two headers name or a number that a float cannot hold would else pass unseen.
"""

from __future__ import annotations

import csv
import io
import json
import stat
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from ntk_propulsion.errors import InputError, shown

Row = Mapping[str, Any]
SUFFIXES = (".csv", ".tsv", ".jsonl")
LONGEST = 2**26
"""Bytes of a line at most."""


class Written(str):
    """A number of a JSON file as it is written there: no digit is lost, and none is too many."""

    __slots__ = ()


class _FaultError(ValueError):
    """What is wrong with a row; where it stands is added to it."""


@dataclass
class _Place:
    """Where in a file the reading is: in the header, or in a row."""

    path: Path
    row: int | None = None

    def __str__(self) -> str:
        return f"{named(self.path)}, header" if self.row is None else row_of(self.path, self.row)


def named(path: Path | str) -> str:
    """Return a path for a message that must stay one line."""
    return str(path) if str(path).isprintable() else repr(str(path))


def row_of(where: Path | str, index: int) -> str:
    """Return the place of a row in words."""
    return f"{named(where)}, row {index} (counted from 0)"


def reads(path: Path) -> bool:
    """Return whether the suffix, in capitals or not, is that of a data file."""
    return path.suffix.lower() in SUFFIXES


def read_file(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield the rows of a file by its suffix.

    Raises:
        InputError: If the file cannot be read, or a row is malformed.
    """
    if not reads(path):
        raise InputError(f"{named(path)}: a data file ends in {', '.join(SUFFIXES)}")
    readers = {".csv": read_csv, ".tsv": read_tsv, ".jsonl": read_jsonl}
    return readers[path.suffix.lower()](path)


def read_tsv(
    path: Path, header: Sequence[str] | None = None, *, widths: Collection[int] = ()
) -> Iterator[tuple[int, Row]]:
    """Yield the rows of a tab-separated file; quotes are plain characters.

    Args:
        path: The file.
        header: Names of the columns, if the file does not begin with them.
        widths: Of how many columns a row may be, if not of as many as are named; those past the
            named ones are left out.

    Raises:
        InputError: A row has fewer columns or more, or the file is no UTF-8 text.
    """
    with _placed(path) as place:
        lines = (line.rstrip("\r\n") for line in _lines(path))
        names = list(header or _header(line.split("\t") for line in lines if line.strip(" ")))
        for place.row in count():
            line = next(lines, None)
            if line is None:
                return
            if line.strip(" "):
                fields = line.split("\t")
                yield place.row, _row(names, fields, widths, "a text cannot hold a tab")


def read_csv(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield the rows of a comma-separated file with a header; blank lines have no number.

    Raises:
        InputError: A row has fewer columns or more, its quotes do not match, or the file is no
            UTF-8 text.
    """
    csv.field_size_limit(sys.maxsize)
    with _placed(path) as place:
        # As a file with newline="" is read: every kind of line end ends a line and is kept.
        lines = (part for line in _lines(path) for part in io.StringIO(line, newline=""))
        rows = (row for row in csv.reader(lines, strict=True) if "".join(row).strip() or row[1:])
        names = _header(rows)
        for place.row in count():
            fields = next(rows, None)
            if fields is None:
                return
            yield place.row, _row(names, fields, (), "put a text that holds a comma in quotes")


def read_jsonl(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield the rows of a file that holds one JSON object a line; numbers come as `Written`.

    Raises:
        InputError: A line is no JSON object, names a key twice, or is no UTF-8 text.
    """
    with _placed(path) as place:
        lines = _lines(path)
        for place.row in count():
            line = next(lines, None)
            if line is None:
                return
            if line.strip():
                yield place.row, _object(line)


@contextmanager
def _placed(path: Path) -> Iterator[_Place]:
    """Make one error of whatever is wrong with a file, with the place where it is wrong."""
    place = _Place(path)
    try:
        yield place
    except OSError as error:
        raise InputError(f"cannot read {named(path)}: {error.strerror}") from error
    except csv.Error as error:
        raise InputError(f"{place}: {_CSV_FAULTS.get(str(error), str(error))}") from error
    except _FaultError as error:
        raise InputError(f"{place}: {error}") from error


_CSV_FAULTS = {
    "unexpected end of data": "a quote is opened here and never closed",
    "',' expected after '\"'": (
        "text follows a closing quote: write a quote inside a quoted text twice"
    ),
}


def _lines(path: Path) -> Iterator[str]:
    """Yield a UTF-8 file's lines with their ends; only a line feed ends a line."""
    if "\0" in str(path):
        raise InputError(f"cannot read {named(path)}: no file has such a name")
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for, a device has no end
        raise InputError(f"cannot read {named(path)}: it is a directory, a pipe or a device")
    with path.open("rb") as file:
        for number in count():
            line = file.readline(LONGEST + 1)
            if not line:
                return
            if len(line) > LONGEST:
                raise _FaultError(f"a line of more than {LONGEST} bytes")
            try:
                text = line.decode("utf-8" if number else "utf-8-sig")
            except UnicodeDecodeError as error:
                utf16 = number == 0 and line.startswith((b"\xff\xfe", b"\xfe\xff"))
                found = "UTF-16" if utf16 else "not UTF-8 text"
                raise _FaultError(f"{found}: save the file as UTF-8") from error
            if "\0" in text:
                raise _FaultError("a NUL character: no text file, or one to save as UTF-8")
            yield text


def _header(rows: Iterator[list[str]]) -> list[str]:
    """Return the names of the columns, the first row; an index may go unnamed."""
    names = next(rows, None)
    if names is None:
        raise _FaultError("the file is empty: its first line names the columns")
    if twice := _repeated(name for name in names if name):
        raise _FaultError(f"two columns are called {shown(twice)}: name one of them otherwise")
    return names


def _repeated(names: Iterable[str]) -> str | None:
    """Return the first name that is there a second time."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _row(names: Sequence[str], fields: Sequence[str], widths: Collection[int], hint: str) -> Row:
    wanted = widths or (len(names),)
    if len(fields) not in wanted:
        needed = " or ".join(map(str, sorted(wanted)))
        hint = f": {hint}" if len(fields) > max(wanted) else ""
        raise _FaultError(f"{len(fields)} columns, but {needed} are needed{hint}")
    if list(fields) == list(names):
        raise _FaultError("the header stands here again: remove it")
    return dict(zip(names, fields, strict=False))


def _object(line: str) -> Row:
    try:
        row = json.loads(
            line,
            parse_int=Written,
            parse_float=Written,
            parse_constant=lambda name: None if name == "NaN" else Written(name),
            object_pairs_hook=_pairs,
        )
    except json.JSONDecodeError as error:
        raise _FaultError(f"not JSON ({error.msg}, at character {error.pos})") from error
    except RecursionError as error:
        raise _FaultError("JSON nested too deeply") from error
    if not isinstance(row, dict):
        raise _FaultError("not a JSON object")
    return row


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = _repeated(name for name, _ in pairs)
        raise _FaultError(f"the key {shown(twice)} stands there twice")
    return found
