"""What every file of tensors offers, whatever its format: names, shapes, and its tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor


class TensorInfo(NamedTuple):
    """What is known of a tensor before it is read."""

    shape: tuple[int, ...]
    dtype: torch.dtype


class TensorFile(Protocol):
    """A file of tensors, opened: its table of contents is known and checked, no tensor is read yet.

    Attributes:
        path: The file.
        tensors: Shape and dtype by name.
        metadata: What the file says beside the tensors.
        ties: Groups of names that are one tensor; not all of them need to be in the file.
        notes: What was chosen or passed over, a sentence each.
    """

    path: Path
    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    ties: list[tuple[str, ...]]
    notes: list[str]

    def read(self, name: str) -> Tensor:
        """Return one tensor, on the CPU, contiguous, in its own memory."""
        ...

    def rounded(self, name: str, values: Tensor) -> Tensor | None:
        """Return what values become when the file stores them under a name, read again.

        None where nobody knows: of a quantised format that no library writes here.
        """
        ...


@runtime_checkable
class Configured(Protocol):
    """A file that says the model's configuration too.

    Attributes:
        config: As config.json would say it.
    """

    config: dict[str, Any]


class PlainFile:
    """A file that stores every number by itself, in the dtype that it announces."""

    tensors: dict[str, TensorInfo]

    def rounded(self, name: str, values: Tensor) -> Tensor:
        """Return the values as the file's dtype has them."""
        return values.to(self.tensors[name].dtype)
