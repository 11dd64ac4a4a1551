"""Tensors to be written: their shapes now, their values when their turn comes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from ntk_propulsion.checkpoints import TensorInfo
from ntk_propulsion.conversion.scaled import ScaledModel


@dataclass(frozen=True)
class Entry:
    """A tensor to be written.

    Attributes:
        info: Its shape and dtype.
        read: Returns it.
    """

    info: TensorInfo
    read: Callable[[], Tensor]

    @classmethod
    def of(cls, tensor: Tensor) -> Entry:
        """Return the entry of a tensor that is in memory already."""
        return cls(TensorInfo(tuple(tensor.shape), tensor.dtype), lambda: tensor)

    @property
    def size(self) -> int:
        """Its bytes."""
        return math.prod(self.info.shape) * self.info.dtype.itemsize


def plain_entries(model: ScaledModel, names: Iterable[str]) -> dict[str, Entry]:
    """Return weights as they are, but buffers that no checkpoint holds."""
    buffers = {name for name, _ in model.skeleton.model.named_buffers()}
    return {
        name: Entry(model.weights.info(name), partial(model.weights.read, name))
        for name in names
        if name in model.weights or name not in buffers
    }
