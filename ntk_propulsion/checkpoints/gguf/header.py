"""The header of a GGUF file, read within bounds: settings, and where which tensor lies.

Ours because the library's reader believes counts and lengths of the file, builds two arrays for
each token of a vocabulary, and maps the file.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ntk_propulsion.checkpoints.files import read_elements, regular_file
from ntk_propulsion.errors import InputError, shown

MAGIC = b"GGUF"
HEADER_LIMIT = 2**26
"""Bytes of settings and table of tensors; a vocabulary of 256 000 tokens takes 20 MB."""
TENSOR_LIMIT = 100_000
"""Tensors of a file."""
TEXT_LIMIT = 2**21
"""Texts of all lists: tokens and merges of the largest vocabularies are 800 000."""
SETTING_LIMIT = 2**16
"""Settings of a file."""
SHORT = 4096
"""Elements of a list, and bytes of a string, that are kept; longer ones are passed over."""
_CHUNK = 2**20
_SCALARS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
"""Numbers by the type of a setting, as `struct` calls them."""
_STRING, _ARRAY, _FLOAT32 = 8, 9, 0
_DIMENSIONS = 4


@dataclass(frozen=True)
class Entry:
    """A tensor of the file.

    Attributes:
        name: Its name in GGUF.
        shape: In torch's order: rows first.
        kind: The number of its type.
        start: Where its bytes begin in the file's data.
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    start: int


@dataclass(frozen=True)
class Header:
    """What a GGUF file says before its data.

    Attributes:
        settings: By key; of long lists the number of their elements, of long texts nothing.
        entries: The tensors.
        data: Where the data begin.
        size: Of the file.
    """

    settings: dict[str, Any]
    entries: tuple[Entry, ...]
    data: int
    size: int


def read_header(path: Path) -> Header:
    """Read the header of a file.

    Raises:
        InputError: It is no GGUF file of a known version, damaged, or larger than any model's.
    """
    try:
        return _header(path)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def short_header(header: Header) -> bytes:
    """Return a GGUF file of the same short settings, whose tensors have their names and no numbers.

    What a library may read of a stranger's header.
    """
    kept = {k: v for k, v in header.settings.items() if k != "general.alignment"}
    settings = [_setting(key, value) for key, value in kept.items() if _is_short(value)]
    tensors = [
        _text(entry.name) + struct.pack("<IQIQ", 1, 0, _FLOAT32, 0) for entry in header.entries
    ]
    counts = struct.pack("<IQQ", 3, len(tensors), len(settings))
    return MAGIC + counts + b"".join(settings + tensors) + b"\0" * 64


class _Cursor:
    """Reads a file from its beginning, a piece at a time, and no further than a header may be."""

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.limit, self.place = path, min(size, HEADER_LIMIT), 0
        self.buffer, self.texts = b"", 0

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        end = self.place + count
        if end > self.limit:
            long = self.limit == HEADER_LIMIT
            raise InputError("its header is " + ("larger than any model's" if long else "cut off"))
        while len(self.buffer) < end:
            held = len(self.buffer)
            more = min(max(_CHUNK, held, end - held), self.limit - held)
            self.buffer += read_elements(self.path, held, more, torch.uint8).numpy().tobytes()
        piece = self.buffer[self.place : end]
        self.place = end
        return piece

    def numbers(self, form: str) -> tuple[Any, ...]:
        """Return the next numbers, little endian."""
        return struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))

    def text(self) -> str:
        """Return the next string."""
        (length,) = self.numbers("Q")
        try:
            return self.take(length).decode()
        except UnicodeDecodeError:
            raise InputError("a text of its header is not UTF-8") from None


def _header(path: Path) -> Header:
    size = regular_file(path)
    cursor = _Cursor(path, size)
    if cursor.take(4) != MAGIC:
        raise InputError("it is no GGUF file")
    (version,) = cursor.numbers("I")
    if version not in (2, 3):
        big = version >= 2**16 and not version % 2**16
        kind = "of the other byte order" if big else f"version {version}"
        raise InputError(f"it is a GGUF file {kind}, not version 2 or 3")
    tensors, count = cursor.numbers("QQ")
    if tensors > TENSOR_LIMIT:
        raise InputError(f"it announces {tensors} tensors, more than any model has")
    if count > SETTING_LIMIT:
        raise InputError(f"it announces {count} settings, more than any model has")
    settings: dict[str, Any] = {}
    for _ in range(count):
        key = cursor.text()
        if key in settings:
            raise InputError(f"the key {shown(key)} appears twice")
        settings[key] = _value(cursor, cursor.numbers("I")[0])
    entries = tuple(_entries(cursor, tensors))
    if len({entry.name for entry in entries}) < len(entries):
        raise InputError("two of its tensors have one name")
    alignment = settings.get("general.alignment", 32)
    if type(alignment) is not int or not 0 < alignment <= 2**16 or alignment % 8:
        raise InputError("its alignment makes no sense")
    return Header(settings, entries, -(-cursor.place // alignment) * alignment, size)


def _value(cursor: _Cursor, kind: int) -> Any:
    """Read a setting; a long list is passed over, and its number of elements returned."""
    if kind in _SCALARS:
        return cursor.numbers(_SCALARS[kind])[0]
    if kind == _STRING:
        text = cursor.text()
        return text if len(text) <= SHORT else None
    if kind != _ARRAY:
        raise InputError(f"a setting has the unknown type {kind}")
    inner, count = cursor.numbers("IQ")
    if inner in _SCALARS:
        width = struct.calcsize(f"<{_SCALARS[inner]}")
        piece = cursor.take(width * count)
        return list(struct.unpack(f"<{count}{_SCALARS[inner]}", piece)) if count <= SHORT else count
    if inner != _STRING:
        raise InputError(f"a setting is a list of the unknown type {inner}")
    cursor.texts += count
    if cursor.texts > TEXT_LIMIT:
        raise InputError(f"its lists have {cursor.texts} texts, more than any vocabulary")
    if count <= SHORT:
        return [cursor.text() for _ in range(count)]
    for _ in range(count):
        cursor.take(cursor.numbers("Q")[0])
    return count


def _entries(cursor: _Cursor, count: int) -> Iterator[Entry]:
    """Read the table of tensors."""
    for _ in range(count):
        name = cursor.text()
        (dimensions,) = cursor.numbers("I")
        if dimensions > _DIMENSIONS:
            raise InputError(f"{shown(name)} has {dimensions} dimensions, more than GGUF knows")
        shape = tuple(reversed(cursor.numbers(f"{dimensions}Q")))
        kind, start = cursor.numbers("IQ")
        if math.prod(n or 1 for n in shape) >= 2**62 or start >= 2**62:
            raise InputError(f"{shown(name)} is larger than any tensor")
        yield Entry(name, shape, kind, start)


def _is_short(value: Any) -> bool:
    """Tell settings that can be written again: numbers, texts, and lists of numbers."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(v, (bool, int, float)) for v in value)
    return isinstance(value, (bool, int, float, str))


def _setting(key: str, value: Any) -> bytes:
    if isinstance(value, list):
        kind = _kind(value)
        items = b"".join(_packed(item, kind) for item in value)
        return _text(key) + struct.pack("<IIQ", _ARRAY, kind, len(value)) + items
    kind = _kind([value])
    return _text(key) + struct.pack("<I", kind) + _packed(value, kind)


def _kind(values: list[Any]) -> int:
    """Return the type that holds all of some numbers, or a text."""
    if isinstance(values[0], str):
        return _STRING
    if all(isinstance(value, bool) for value in values):
        return 7
    if any(isinstance(value, float) for value in values):
        return 12
    return 10 if max(values) >= 2**63 else 11


def _packed(value: Any, kind: int) -> bytes:
    return _text(value) if kind == _STRING else struct.pack(f"<{_SCALARS[kind]}", value)


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw
