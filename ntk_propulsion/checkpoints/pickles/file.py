"""State dicts as `torch.save` writes them: zip archives, and the files of torch before 1.6.

Nothing is unpickled: `opcodes` reads which tensors there are and where, and a tensor is then the
bytes at its place in the file. No kept library does that: ``torch.load(weights_only=True)`` calls
the functions that it allows, which once sufficed to run others (CVE-2025-32434), and builds all
tensors before one can be looked at, those included whose view repeats a few bytes to look large.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ntk_propulsion.checkpoints.files import read_elements, regular_file
from ntk_propulsion.checkpoints.pickles.archives import (
    DTYPES,
    PARAMETERS,
    STORAGES,
    TENSORS,
    Place,
    fields,
    read_legacy,
    read_zip,
)
from ntk_propulsion.checkpoints.pickles.nests import state_dict
from ntk_propulsion.checkpoints.pickles.opcodes import Call, Global
from ntk_propulsion.checkpoints.tensor_file import PlainFile, TensorInfo
from ntk_propulsion.errors import InputError, shown

SHARED = 64
"""How often all names together may read a file: a model may use one layer as all of its layers."""


@dataclass(frozen=True)
class _Stored:
    """A tensor as a view of a storage: offset, shape and stride in elements, as torch has them."""

    storage: str
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def span(self) -> int:
        """How many elements lie from the view's first to its last."""
        if 0 in self.shape:
            return 0
        return 1 + sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True))


class PickleFile(PlainFile):
    """The tensors of a `.bin`, `.pt` or `.pth` file, each read when it is asked for.

    Attributes:
        tensors: Shape and dtype by name.
        metadata: Empty: pickles have none.
        ties: Groups of names that are one tensor.
        notes: What was passed over, a sentence each.
    """

    def __init__(self, path: Path) -> None:
        """Read which tensors the file holds.

        Raises:
            InputError: The file is damaged, asks for code, or holds no state dict.
        """
        self.path = path
        self.notes: list[str] = []
        self.metadata: dict[str, str] = {}
        size = regular_file(path)
        try:
            with path.open("rb") as file:
                zipped = file.read(4) == b"PK\x03\x04"
                file.seek(0)
                content, places = read_zip(file, size) if zipped else read_legacy(file, size)
            self._stored = dict(self._state_dict(content))
            for stored in self._stored.values():
                _check(stored, places)
            _check_together(self._stored.values(), size)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from None
        self._places = places
        self.tensors = {name: TensorInfo(s.shape, s.dtype) for name, s in self._stored.items()}
        views: dict[_Stored, list[str]] = {}
        for name, stored in self._stored.items():
            views.setdefault(stored, []).append(name)
        self._views = views
        self._last: tuple[_Stored, Tensor] | None = None
        self.ties: list[tuple[str, ...]] = [
            tuple(names) for names in views.values() if len(names) > 1
        ]

    def read(self, name: str) -> Tensor:
        """Return one tensor, contiguous, in its own memory but for the names that are tied to it.

        Of a view with several names the last one stays in memory: each is read once, not for every
        name.
        """
        stored = self._stored[name]
        if self._last is not None and self._last[0] == stored:
            return self._last[1]
        tensor = self._read(stored)
        self._last = (stored, tensor) if len(self._views[stored]) > 1 else None
        return tensor

    def _read(self, stored: _Stored) -> Tensor:
        start = self._places[stored.storage].start + stored.offset * stored.dtype.itemsize
        flat = read_elements(self.path, start, stored.span, stored.dtype)
        return flat.as_strided(stored.shape, stored.stride).contiguous()

    def _state_dict(self, content: Any) -> Iterator[tuple[str, _Stored]]:
        """Yield the tensors of a state dict, which may lie within other dictionaries."""
        found, notes = state_dict(content, _is_tensor, self.path.name)
        self.notes += notes
        for name, value in found.items():
            yield name, _stored(value)


def _is_tensor(value: Any) -> bool:
    known = (*PARAMETERS, *TENSORS)
    return isinstance(value, Call) and value.function in [("torch._utils", name) for name in known]


def _stored(value: Call) -> _Stored:
    """Return the view that a recorded call would make."""
    if value.function.name in PARAMETERS and value.arguments and _is_tensor(value.arguments[0]):
        value = value.arguments[0]
    if value.function.name not in TENSORS or len(value.arguments) < 4:
        raise InputError("its pickle is damaged: a tensor without a storage")
    reference, offset, shape, stride, *rest = value.arguments
    kind, storage, key = fields(reference)[:3]
    dtype = STORAGES.get(storage) if isinstance(storage, Global) else None
    if value.function.name == "_rebuild_tensor_v3" and len(rest) > 2:
        dtype = DTYPES.get(rest[2]) if isinstance(rest[2], Global) else None
    if dtype is None or kind != "storage" or not isinstance(key, str):
        raise InputError("its pickle is damaged: a tensor has no type")
    if not (_are_sizes(shape) and _are_sizes(stride) and _are_sizes((offset,))):
        raise InputError("its pickle is damaged: a tensor has no shape")
    if len(shape) != len(stride):
        raise InputError("its pickle is damaged: a tensor has more dimensions than strides")
    return _Stored(key, dtype, offset, shape, stride)


def _are_sizes(numbers: Any) -> bool:
    """Return whether this is a shape that torch can represent."""
    return (
        isinstance(numbers, tuple)
        and len(numbers) <= 64
        and all(type(number) is int and 0 <= number < 2**62 for number in numbers)
    )


def _check_together(every: Iterable[_Stored], size: int) -> None:
    """Check that all views together are no more than a model that shares its weights has."""
    together = sum(stored.span * stored.dtype.itemsize for stored in every)
    if together > SHARED * size + 2**20:
        raise InputError(
            f"its tensors are views of the same numbers, {together / size:.0f} times over: save "
            "each of them once"
        )


def _check(stored: _Stored, places: Mapping[str, Place]) -> None:
    """Check that the view lies within its storage, and does not repeat it to look larger."""
    place = places.get(stored.storage)
    if place is None:
        raise InputError(f"the storage {shown(stored.storage)} is missing: the file is cut off")
    if stored.span and (stored.offset + stored.span) * stored.dtype.itemsize > place.size:
        raise InputError(f"a tensor of shape {stored.shape} does not fit its storage")
    if math.prod(stored.shape) > stored.span or math.prod(n or 1 for n in stored.shape) >= 2**62:
        raise InputError(f"a tensor of shape {stored.shape} claims more than its storage holds")
