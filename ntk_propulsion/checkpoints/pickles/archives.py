"""The files that `torch.save` writes: what their pickle says, and where their storages lie.

Since torch 1.6 they are zip archives, before that five pickles with the storages behind them.
The standard library lists a zip archive's members; where their bytes lie is read here, so that
nothing is unpacked, and no member can claim more than the file holds.
"""

from __future__ import annotations

import zipfile
from io import BytesIO
from typing import Any, BinaryIO, NamedTuple

import torch

from ntk_propulsion.checkpoints.bounds import READ
from ntk_propulsion.checkpoints.pickles.names import AllowedNames, Global
from ntk_propulsion.checkpoints.pickles.opcodes import Reference, read_pickle
from ntk_propulsion.errors import InputError, shown

PICKLE_LIMIT = 16 * 2**20
"""Bytes of pickle that are read at most; a tensor takes about 200."""

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_KINDS = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexDouble": torch.complex128,
    "ComplexFloat": torch.complex64,
}
STORAGES = {Global("torch", f"{name}Storage"): dtype for name, dtype in _KINDS.items()}
DTYPES = {
    Global("torch", name): value
    for name, value in vars(torch).items()
    if isinstance(value, torch.dtype) and value in READ
}
_UNTYPED = Global("torch.storage", "UntypedStorage")
PARAMETERS = ("_rebuild_parameter", "_rebuild_parameter_with_state")
TENSORS = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3")
_ALLOWED = AllowedNames(
    {
        *STORAGES,
        _UNTYPED,
        *(Global("torch._utils", name) for name in (*PARAMETERS, *TENSORS)),
        *DTYPES,
    }
)


class _Directory:
    """A file whose list of members is read, if it is no longer than makes sense."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        """Read no more than a list of members takes: zipfile asks for the whole list at once."""
        if size > PICKLE_LIMIT:
            raise InputError("its list of members is longer than that of any state dict")
        return self._file.read(PICKLE_LIMIT if size < 0 else size)


class Place(NamedTuple):
    """Where the bytes of a storage lie in the file."""

    start: int
    size: int


def read_zip(file: BinaryIO, size: int) -> tuple[Any, dict[str, Place]]:
    """Return what a zip archive of torch.save says, and where its storages lie."""
    try:
        with zipfile.ZipFile(_Directory(file)) as archive:
            members = archive.infolist()
    except InputError:
        raise
    except Exception as error:  # zipfile raises many kinds for a damaged archive
        raise InputError(f"it is a damaged zip archive: {shown(str(error))}") from None
    if any(m.compress_type != zipfile.ZIP_STORED or m.flag_bits & 1 for m in members):
        raise InputError("it is a compressed zip archive, which torch.save does not write")
    if sum(max(m.file_size, m.compress_size) for m in members) > size:
        raise InputError(f"its zip archive claims more than the {size} bytes of the file")
    places = {member.filename: _place(file, member, size) for member in members}
    if len(places) != len(members):
        raise InputError("its zip archive holds two files of one name")
    roots = [name.removesuffix("data.pkl") for name in places if name.endswith("/data.pkl")]
    if len(roots) != 1 or roots[0].count("/") != 1:
        raise InputError("it is a zip archive, but not one of torch.save: it has no data.pkl")
    order = places.get(f"{roots[0]}byteorder")
    if order and _bytes(file, order, 16) != b"little":
        raise InputError("it was saved on a big-endian machine: save it again on another")
    pickle = BytesIO(_bytes(file, places[f"{roots[0]}data.pkl"], PICKLE_LIMIT))
    storages = f"{roots[0]}data/"
    return read_pickle(pickle, _ALLOWED), {
        name.removeprefix(storages): place
        for name, place in places.items()
        if name.startswith(storages)
    }


def _place(file: BinaryIO, member: zipfile.ZipInfo, size: int) -> Place:
    """Return where a member's bytes lie: behind its local header, 30 bytes, a name, an extra."""
    file.seek(max(member.header_offset, 0))
    header = file.read(30)
    if member.header_offset < 0 or len(header) != 30 or header[:4] != b"PK\x03\x04":
        raise InputError("it is a damaged zip archive: a member has no header")
    lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    place = Place(member.header_offset + 30 + lengths, member.file_size)
    if place.start + place.size > size:
        raise InputError("its zip archive is cut off: a member reaches past the end of the file")
    return place


def _bytes(file: BinaryIO, place: Place, limit: int) -> bytes:
    if place.size > limit:
        raise InputError(f"it has {place.size} bytes where at most {limit} make sense")
    file.seek(place.start)
    return file.read(place.size)


def read_legacy(file: BinaryIO, size: int) -> tuple[Any, dict[str, Place]]:
    """Return the same of a file of torch before 1.6: five pickles, then the storages in order."""
    stream = BytesIO(file.read(PICKLE_LIMIT))
    if read_pickle(stream, _ALLOWED) != _MAGIC or read_pickle(stream, _ALLOWED) != _PROTOCOL:
        raise InputError("it is a pickle, but not one of torch.save")
    machine = read_pickle(stream, _ALLOWED)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise InputError("it was saved on a big-endian machine: save it again on another")
    references: list[Reference] = []
    content = read_pickle(stream, _ALLOWED, references)
    keys = read_pickle(stream, _ALLOWED)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise InputError("it does not list its storages")
    widths = dict(_width(reference) for reference in references)
    places: dict[str, Place] = {}
    start = stream.tell()
    for key in keys:
        if key not in widths:
            raise InputError(f"it lists a storage {shown(key)} that nothing refers to")
        file.seek(start)
        count = int.from_bytes(file.read(8), "little")
        places[key] = Place(start + 8, count * widths[key])
        start += 8 + places[key].size
        if start > size:
            raise InputError("it is cut off: a storage reaches past the end of the file")
    return content, places


def _width(reference: Reference) -> tuple[Any, int]:
    """Return a storage's key and the bytes that one element of it takes."""
    kind, storage, key = fields(reference)[:3]
    if kind != "storage" or not isinstance(key, str) or not isinstance(storage, Global):
        raise InputError("its pickle is damaged: it refers to what is not a storage")
    return key, STORAGES.get(storage, torch.uint8).itemsize


def fields(reference: Any) -> tuple[Any, ...]:
    """Return what a reference to a storage says: "storage", its type, key, device and size."""
    if not (isinstance(reference, Reference) and isinstance(reference.key, tuple)):
        raise InputError("its pickle is damaged: a tensor without a storage")
    if len(reference.key) < 5 or reference.key[5:] not in ((), (None,)):
        raise InputError("its pickle refers to a part of a storage: save it with torch >= 1.6")
    return reference.key
