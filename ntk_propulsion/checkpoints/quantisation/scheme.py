"""What a scheme of quantisation is, and the registry of them: the room's `schemes` fill it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ntk_propulsion.checkpoints.checkpoint import Checkpoint
from ntk_propulsion.checkpoints.tensor_file import TensorInfo
from ntk_propulsion.errors import InputError, shown

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
"""Numbers that are meant as they are stored."""
FLOAT8 = (
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz,
)
INTEGERS = (
    torch.int8, torch.uint8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64,
    torch.uint64,
)  # fmt: skip


def refusal(path: Path, what: str, advice: str) -> InputError:
    """Return the error for a checkpoint that cannot be opened as floats.

    Args:
        path: Of the checkpoint; the end of a long one is shown.
        what: What it is, to be read after its path: "is quantised by GPTQ".
        advice: What to do.
    """
    text = str(path)
    return InputError(f"{text if len(text) <= 70 else f'...{text[-67:]}'} {what}: {advice}")


class Stored(Protocol):
    """A tensor as a scheme stores it: all checked that can be before its codes are read.

    Attributes:
        info: Shape and dtype of the floats that it stands for, as the plain model has them.
        parts: The keys that it lies under, that of its codes first.
    """

    @property
    def info(self) -> TensorInfo:
        """Shape and dtype of the floats."""
        ...

    @property
    def parts(self) -> tuple[str, ...]:
        """The keys, that of the codes first."""
        ...

    def dequantised(self) -> Tensor:
        """Return the floats; raises `ntk_propulsion.errors.InputError`."""
        ...

    def rounded(self, values: Tensor) -> Tensor | None:
        """Return what storing values so makes of them; None where nobody knows."""
        ...


@dataclass(frozen=True)
class Found:
    """What a scheme found in a checkpoint.

    Attributes:
        words: The scheme in words, with the library that opens it: "NF4 by bitsandbytes 0.50".
        matrices: The tensors that it stores, by their plain names.
        hidden: Other keys of it that are no tensor of the model.
        notes: What one should know, a sentence each.
    """

    words: str = ""
    matrices: Mapping[str, Stored] = field(default_factory=dict)
    hidden: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    @property
    def keys(self) -> set[str]:
        """All keys of the checkpoint that the scheme explains."""
        return {part for stored in self.matrices.values() for part in stored.parts} | self.hidden


@dataclass(frozen=True)
class Sight:
    """A checkpoint as the schemes look at it.

    Attributes:
        checkpoint: As it is stored.
        method: The method that its configuration names; None if it names none.
        settings: The settings beside it.
        names: The keys that no scheme has explained yet.
    """

    checkpoint: Checkpoint
    method: str | None
    settings: Mapping[str, Any]
    names: frozenset[str]

    @cached_property
    def small(self) -> tuple[str, ...]:
        """Keys of numbers that no plain model has; long integers count, and bytes of none mask."""
        kinds = {*FLOAT8, *INTEGERS} - {torch.int64}
        return tuple(sorted(name for name in self.names if self.dtype(name) in kinds))

    @cached_property
    def packed(self) -> tuple[str, ...]:
        """Keys of matrices that are no plain floats; integers that only count are none."""
        return tuple(sorted(name for name in self.names if self._is_packed(name)))

    def ending(self, end: str) -> list[str]:
        """Return what stands before an end of keys, in order."""
        return sorted(name.removesuffix(end) for name in self.names if name.endswith(end))

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a key's tensor."""
        return self.checkpoint[name].shape

    def dtype(self, name: str) -> torch.dtype:
        """Return the dtype of a key's tensor."""
        return self.checkpoint[name].dtype

    def without(self, keys: set[str]) -> Sight:
        """Return the same with some keys explained."""
        return replace(self, names=self.names - keys)

    def refused(self, what: str, advice: str) -> InputError:
        """Return the error for this checkpoint, see `refusal`."""
        return refusal(self.checkpoint.path, what, advice)

    def damaged(self, name: str, what: str) -> InputError:
        """Return the error for a tensor whose parts do not fit each other."""
        return self.refused(f"is damaged: {shown(name)} {what}", "fetch or save it again")

    def require(self, name: str, dtypes: tuple[torch.dtype, ...], count: int | None = None) -> None:
        """Refuse a part that is missing, of another dtype, or of another number of elements."""
        if name not in self.checkpoint:
            raise self.damaged(name, "is missing")
        shape, dtype = self.checkpoint[name]
        if dtype not in dtypes:
            raise self.damaged(name, f"is {str(dtype).removeprefix('torch.')}")
        if count is not None and math.prod(shape) != count:
            raise self.damaged(name, f"has {math.prod(shape)} numbers, not {count}")

    def _is_packed(self, name: str) -> bool:
        shape, dtype = self.checkpoint[name]
        if dtype in FLOAT8 or dtype in (torch.int8, torch.uint8):
            return len(shape) > 1 and not name.endswith(("bias", "mask"))
        return dtype in INTEGERS and _leaf(name).endswith("weight")


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


@dataclass(frozen=True)
class Scheme:
    """A scheme of quantisation.

    Attributes:
        name: In words.
        methods: What configurations call it under quant_method.
        find: Returns what a checkpoint holds of it; raises `ntk_propulsion.errors.InputError` where
            it is this scheme and cannot be opened.
        rank: Schemes of a lower rank look first: what is left over comes last.
    """

    name: str
    methods: tuple[str, ...]
    find: Callable[[Sight], Found]
    rank: int = 0


SCHEMES: list[Scheme] = []
