"""What `torch.distributed.checkpoint` writes: a table of contents, and tensors in chunks.

The table, `.metadata`, is a pickle of torch's dataclasses; it is read as records. Each chunk lies
in a `.distcp` file as `torch.save` wrote it. Nothing is unpickled; torch's own reader unpickles.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from torch import Tensor

from ntk_propulsion.checkpoints.files import member, read_elements, regular_file
from ntk_propulsion.checkpoints.pickles.archives import (
    DTYPES,
    PARAMETERS,
    PICKLE_LIMIT,
    STORAGES,
    TENSORS,
    fields,
    read_zip,
)
from ntk_propulsion.checkpoints.pickles.names import AllowedNames, Global
from ntk_propulsion.checkpoints.pickles.nests import state_dict
from ntk_propulsion.checkpoints.pickles.opcodes import Call, read_pickle
from ntk_propulsion.checkpoints.tensor_file import PlainFile, TensorInfo
from ntk_propulsion.errors import InputError, shown

TABLE = ".metadata"
_LEVELS = 16
_MANY_CHUNKS = 256
_ALLOWED = AllowedNames(DTYPES)
Sizes = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class _Entry:
    """A tensor as the table has it: where each chunk of it begins, and how large it is."""

    name: str
    dtype: torch.dtype
    shape: Sizes
    chunks: dict[Sizes, Sizes]


@dataclass(frozen=True)
class _Range:
    """The bytes of a file that hold a chunk."""

    path: Path
    start: int
    size: int


class DistributedFile(PlainFile):
    """The tensors of a folder of `.distcp` files, each put together when it is asked for.

    Attributes:
        path: The table of contents.
        tensors: Shape and dtype by name.
        metadata: Empty.
        ties: None: a tied tensor is stored once under each name.
        notes: What was passed over, a sentence each.
    """

    def __init__(self, folder: Path) -> None:
        """Read and check the table of contents.

        Raises:
            InputError: It is damaged, asks for code, or does not fit the files beside it.
        """
        self.path = folder / TABLE
        self.metadata: dict[str, str] = {}
        self.ties: list[tuple[str, ...]] = []
        try:
            table = _table(folder)
            self._entries, self.notes = _named(table)
            self._ranges = _ranges(folder, table, self._entries)
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from None
        self.tensors = {name: TensorInfo(e.shape, e.dtype) for name, e in self._entries.items()}

    def read(self, name: str) -> Tensor:
        """Return one tensor, its chunks put together."""
        entry = self._entries[name]
        whole = torch.empty(entry.shape, dtype=entry.dtype)
        for start, size in entry.chunks.items():
            found = self._ranges[entry.name, start]
            part = _chunk(found, entry.dtype, size)
            whole[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))] = part
        return whole


def _table(folder: Path) -> dict[str, Any]:
    path = member(folder, TABLE)
    if path is None:
        raise InputError("it is missing: the checkpoint was not finished")
    size = regular_file(path)
    if size > PICKLE_LIMIT:
        raise InputError(f"it has {size} bytes where at most {PICKLE_LIMIT} make sense")
    raw = read_elements(path, 0, size, torch.uint8).numpy().tobytes()
    return _record(read_pickle(BytesIO(raw), _ALLOWED), "Metadata")


def _record(value: Any, kind: str) -> dict[str, Any]:
    """Return the attributes of a record of a class, as the pickle sets them."""
    if not isinstance(value, Call) or value.function.name != kind or len(value.states) != 1:
        raise InputError(f"it is damaged: {shown(value)} stands where a {kind} should")
    state = value.states[0]
    if not isinstance(state, dict):
        raise InputError(f"it is damaged: a {kind} has no attributes")
    return state


def _sizes(value: Any) -> Sizes:
    """Return a shape or an offset: what torch.Size is called with."""
    if isinstance(value, Call) and value.function == ("torch", "Size"):
        value = value.arguments[0] if value.arguments else ()
    if not isinstance(value, tuple | list) or len(value) > 64:
        raise InputError("it is damaged: a tensor has no shape")
    if not all(type(n) is int and 0 <= n < 2**62 for n in value):
        raise InputError("it is damaged: a tensor has an impossible shape")
    return tuple(value)


def _named(table: dict[str, Any]) -> tuple[dict[str, _Entry], list[str]]:
    """Return the model's tensors by the names that they have in its state dict, and notes."""
    found = table.get("state_dict_metadata")
    if not isinstance(found, dict):
        raise InputError("it lists no tensors")
    entries = {
        name: _entry(name, value)
        for name, value in found.items()
        if isinstance(value, Call) and value.function.name == "TensorStorageMetadata"
    }
    paths = table.get("planner_data")
    content: dict[Any, Any] = {}
    for name in found:
        path = paths.get(name) if isinstance(paths, dict) else None
        _put(content, _path(path, name), entries.get(name))
    return state_dict(content, lambda value: isinstance(value, _Entry), TABLE)


def _path(path: Any, name: Any) -> tuple[Any, ...]:
    """Return where a tensor lies in nested dictionaries; its flat name where nothing says."""
    whole = isinstance(path, tuple) and 0 < len(path) <= _LEVELS
    return path if whole and all(type(part) in (str, int) for part in path) else (name,)


def _put(content: dict[Any, Any], path: tuple[Any, ...], value: _Entry | None) -> None:
    for part in path[:-1]:
        content = content.setdefault(part, {})
        if not isinstance(content, dict):
            raise InputError(f"it is damaged: {shown(part)} is a tensor and holds others")
    if path[-1] in content:
        raise InputError(f"it is damaged: {shown(path[-1])} is there twice")
    content[path[-1]] = value


def _entry(name: Any, value: Call) -> _Entry:
    state = _record(value, "TensorStorageMetadata")
    properties, chunks = state.get("properties"), state.get("chunks")
    made = isinstance(properties, Call) and len(properties.states) == 1
    kind = properties.states[0] if made else None  # type: ignore[union-attr]
    first = kind[0] if isinstance(kind, tuple) and kind else None
    if isinstance(kind, dict):
        first = kind.get("dtype")
    dtype = DTYPES.get(first) if isinstance(first, Global) else None
    if not isinstance(name, str) or dtype is None or not isinstance(chunks, list):
        raise InputError(f"it is damaged: {shown(name)} has no type or no chunks")
    shape = _sizes(state.get("size"))
    if math.prod(n or 1 for n in shape) >= 2**62:
        raise InputError(f"{shown(name)} has an impossible shape")
    return _Entry(name, dtype, shape, _chunks(name, shape, chunks))


def _chunks(name: str, shape: Sizes, records: list[Any]) -> dict[Sizes, Sizes]:
    """Return the size of every chunk by its place; they must tile the tensor."""
    found: dict[Sizes, Sizes] = {}
    for record in records:
        state = _record(record, "ChunkStorageMetadata")
        start, size = _sizes(state.get("offsets")), _sizes(state.get("sizes"))
        if not len(start) == len(size) == len(shape):
            raise InputError(f"a chunk of {shown(name)} has other dimensions than the tensor")
        if any(a + n > whole for a, n, whole in zip(start, size, shape, strict=True)):
            raise InputError(f"a chunk of {shown(name)} reaches beyond the tensor")
        if 0 not in size and found.setdefault(start, size) != size:
            raise InputError(f"two chunks of {shown(name)} are at one place")
    held = sum(map(math.prod, found.values()))
    if held != math.prod(shape):
        raise InputError(
            f"the chunks of {shown(name)} hold {held} of its {math.prod(shape)} numbers: parts are "
            "missing or twice there; fetch or save the checkpoint again"
        )
    if _overlap(found):
        raise InputError(f"chunks of {shown(name)} overlap: save the checkpoint again")
    return found


def _overlap(chunks: dict[Sizes, Sizes]) -> bool:
    """Tell whether two chunks share an element; of very many, along one dimension only."""
    places = sorted(chunks)
    if len(places) > _MANY_CHUNKS:
        split = [d for d, values in enumerate(zip(*places, strict=True)) if len(set(values)) > 1]
        if len(split) > 1:
            raise InputError(f"a tensor in {len(places)} chunks along several dimensions")
        pairs = list(pairwise(places))
    else:
        pairs = [(a, b) for i, a in enumerate(places) for b in places[i + 1 :]]
    return any(
        all(p < q + m and q < p + n for p, n, q, m in zip(a, chunks[a], b, chunks[b], strict=True))
        for a, b in pairs
    )


def _ranges(
    folder: Path, table: dict[str, Any], entries: dict[str, _Entry]
) -> dict[tuple[str, Sizes], _Range]:
    """Return where the bytes of every chunk lie, which no other chunk has."""
    wanted = {(entry.name, start): entry for entry in entries.values() for start in entry.chunks}
    found: dict[tuple[str, Sizes], _Range] = {}
    files: dict[str, tuple[Path, int]] = {}
    for key, info in _storage(table, {entry.name: entry for entry in entries.values()}):
        if key in wanted:
            if key in found:
                raise InputError(f"a chunk of {shown(key[0])} is stored twice")
            found[key] = _range(folder, info, files)
            entry = wanted[key]
            needed = math.prod(entry.chunks[key[1]]) * entry.dtype.itemsize
            if found[key].size < needed:
                raise InputError(f"a chunk of {shown(key[0])} claims more than its file holds")
    if lost := [key for key in wanted if key not in found]:
        raise InputError(f"it does not say where {shown(lost[0][0])} is stored")
    ordered = sorted(found.values(), key=lambda place: (place.path, place.start))
    for one, other in pairwise(ordered):
        if one.path == other.path and one.start + one.size > other.start:
            raise InputError(f"two chunks of {one.path.name} share their bytes")
    return found


def _storage(
    table: dict[str, Any], entries: dict[str, _Entry]
) -> Iterator[tuple[tuple[str, Sizes], dict[str, Any]]]:
    storage = table.get("storage_data")
    if not isinstance(storage, dict):
        raise InputError("it does not say where tensors are stored")
    for index, info in storage.items():
        state = _record(index, "MetadataIndex")
        name, offset = state.get("fqn"), state.get("offset")
        if isinstance(name, str) and name in entries:
            start = (0,) * len(entries[name].shape) if offset is None else _sizes(offset)
            yield (name, start), _record(info, "_StorageInfo")


def _range(folder: Path, info: dict[str, Any], files: dict[str, tuple[Path, int]]) -> _Range:
    name, start, size = info.get("relative_path"), info.get("offset"), info.get("length")
    if info.get("transform_descriptors"):
        raise InputError("it was written compressed: load it with torch and save it without")
    if not (isinstance(name, str) and isinstance(start, int) and isinstance(size, int)):
        raise InputError("it is damaged: a chunk has no place")
    if name not in files:
        path = member(folder, name)
        if path is None:
            raise InputError(f"it names {shown(name)}, which is missing: fetch all the files")
        files[name] = path, regular_file(path)
    path, whole = files[name]
    if min(start, size) < 0 or start + size > whole:
        raise InputError(f"{shown(name)} is cut off: a chunk reaches past its end")
    return _Range(path, start, size)


def _chunk(place: _Range, dtype: torch.dtype, size: Sizes) -> Tensor:
    """Return the one tensor that a range of a file holds, as torch.save wrote it."""
    with place.path.open("rb") as file:
        window = _Window(file, place.start, place.size)
        if window.read(4) != b"PK\x03\x04":
            raise InputError(f"{place.path} holds a chunk that torch.save did not write")
        content, places = read_zip(cast(BinaryIO, window), place.size)
    if isinstance(content, Call) and content.function.name in PARAMETERS and content.arguments:
        content = content.arguments[0]
    known = isinstance(content, Call) and content.function in [("torch._utils", n) for n in TENSORS]
    if not known or len(content.arguments) < 4:
        raise InputError(f"{place.path} holds a chunk that is no tensor")
    reference, offset, shape, stride = content.arguments[:4]
    _, storage, key = fields(reference)[:3]
    shape, stride, (offset,) = _sizes(shape), _sizes(stride), _sizes((offset,))
    stored = STORAGES.get(storage) if isinstance(storage, Global) else None
    if stored is None and content.function.name == "_rebuild_tensor_v3":
        kind = content.arguments[6] if len(content.arguments) > 6 else None
        stored = DTYPES.get(kind) if isinstance(kind, Global) else None
    if stored != dtype or shape != size or len(stride) != len(shape) or key not in places:
        raise InputError(f"{place.path} holds a chunk of another type or shape than {TABLE} says")
    span = 1 + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
    inside = (offset + span) * dtype.itemsize <= places[key].size
    if not inside or math.prod(shape) > span:
        raise InputError(f"{place.path} holds a chunk that does not fit its storage")
    start = place.start + places[key].start + offset * dtype.itemsize
    return read_elements(place.path, start, span, dtype).as_strided(shape, stride)


class _Window(io.RawIOBase):
    """A part of a file, as a file."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self._start, self._size = file, start, size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if origin + offset < 0:
            raise OSError("before the beginning")
        self._at = origin + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(self._size - self._at, 0)
        self._file.seek(self._start + self._at)
        found = self._file.read(left if size is None or size < 0 else min(size, left))
        self._at += len(found)
        return found
