"""A checkpoint in whatever form it comes: what it holds, and its tensors one at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
from torch import Tensor

from ntk_propulsion.checkpoints.bounds import check_tensors
from ntk_propulsion.checkpoints.budget import spend
from ntk_propulsion.checkpoints.tensor_file import TensorFile, TensorInfo
from ntk_propulsion.errors import InputError, shown, unknown

TRAINED_FILE = "trained.safetensors"
"""What our own training writes into its checkpoint folders: the trained parameters only."""


class Checkpoint(Mapping[str, TensorInfo]):
    """A checkpoint: shape and dtype by tensor name, and `tensor` to read one.

    Attributes:
        path: The file or folder.
        form: What it is, in words.
        files: The files that its tensors lie in.
        config: What config.json says; empty if there is none.
        adapter_config: What adapter_config.json of a PEFT adapter says; empty if there is none.
        metadata: What the headers of its safetensors files say beside the tensors.
        ties: Groups of names that are one tensor; not all of them need to be in the checkpoint.
        notes: What was chosen or passed over in reading it, a sentence each.
    """

    def __init__(self, path: Path, form: str, sources: Mapping[str, TensorFile]) -> None:
        self.path = path
        self.form = form
        self.config: dict[str, Any] = {}
        self.adapter_config: dict[str, Any] = {}
        self._sources = sources
        once = {source.path: source for source in sources.values()}
        self.files = tuple(once)
        self.metadata: dict[str, str] = {}
        for source in once.values():
            self.metadata |= source.metadata
        self.ties = [tie for source in once.values() for tie in source.ties]
        try:
            check_tensors(dict(self.items()))
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        self.notes: list[str] = [note for source in once.values() for note in source.notes]

    def __getitem__(self, name: str) -> TensorInfo:
        return self._sources[name].tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)

    def __repr__(self) -> str:
        return f"Checkpoint({str(self.path)!r}, {self.form}, {len(self)} tensors)"

    def source(self, name: str) -> TensorFile:
        """Return the file that a tensor lies in."""
        return self._sources[name]

    def tensor(self, name: str) -> Tensor:
        """Return one tensor, on the CPU and in the dtype of the file.

        Raises:
            InputError: There is none of that name, it does not fit into the free memory, or the
                file cannot be read any more.
        """
        if name not in self._sources:
            raise unknown("tensor", name, self)
        spend(at=f"{self.path}: {name}")
        info = self[name]
        size, free = math.prod(info.shape) * info.dtype.itemsize, psutil.virtual_memory().available
        if size > free:
            raise InputError(
                f"{self.path}: {shown(name)} takes {size / 2**30:.1f} GiB, "
                f"{free / 2**30:.1f} GiB of memory are free"
            )
        try:
            return self._sources[name].read(name)
        except (OSError, RuntimeError, OverflowError, MemoryError) as error:
            raise InputError(f"{self.path}: cannot read {shown(name)}: {error}") from None

    def rounded(self, name: str, values: Tensor) -> Tensor | None:
        """Return what values become when this checkpoint stores them under a name, read again.

        What storing the base alone would have changed is told apart by it from what training did.

        Returns:
            As the stored tensor is read; None where nobody knows how its format rounds.
        """
        return self._sources[name].rounded(name, values)
