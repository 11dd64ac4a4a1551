"""GGUF files, as llama.cpp runs them: dequantised by the package gguf, named as in transformers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ntk_propulsion.checkpoints.checkpoint import Checkpoint
from ntk_propulsion.checkpoints.files import member, read_elements
from ntk_propulsion.checkpoints.format import FILES, FOLDERS, FileFormat, FolderFormat
from ntk_propulsion.checkpoints.gguf.header import MAGIC, Entry, Header, read_header
from ntk_propulsion.checkpoints.gguf.names import names_of
from ntk_propulsion.checkpoints.opening import open_file
from ntk_propulsion.checkpoints.quantisation.libraries import library, with_version
from ntk_propulsion.checkpoints.tensor_file import TensorInfo
from ntk_propulsion.errors import InputError, shown

Array = np.ndarray[Any, Any]
_ELSEWHERE = {
    "adapter": "a LoRA for llama.cpp: give the PEFT adapter that it was made from",
    "imatrix": "statistics for quantising a model: give the model",
    "mmproj": "the part of a model that sees: give the model's own folder",
}
"""What a GGUF may hold beside a model, with what to give instead."""


class GgufFile:
    """The tensors of a GGUF file under the names and in the layout of transformers.

    Attributes:
        path: The file.
        tensors: Shape and dtype (float32) by name.
        metadata: Empty.
        ties: Groups of names that are one tensor.
        notes: What was dequantised and what was left out, a sentence each.
        config: The model's configuration.
    """

    def __init__(self, path: Path) -> None:
        """Read the file's header.

        Raises:
            InputError: The package gguf is missing, the file is damaged, or transformers does not
                know its architecture.
        """
        library(path, "gguf", "GGUF")
        self.path = path
        header = read_header(path)
        _require_model(path, header)
        self._names = names_of(path, header)
        self._entries = {entry.name: entry for entry in header.entries}
        self._starts = _places(path, header)
        self.config: dict[str, Any] = self._names.config
        self.metadata: dict[str, str] = {}
        self.ties = self._names.skeleton.ties
        self.tensors = {name: self._info(name) for name in self._names.sources}
        if not self.tensors:
            raise InputError(f"{path} holds no tensor of the model that its settings describe")
        self.notes = self._said()

    def read(self, name: str) -> Tensor:
        """Return one tensor, dequantised."""
        return self._names.tensor(
            name, {source: self._values(source) for source in self._names.sources[name]}
        )

    def rounded(self, name: str, values: Tensor) -> Tensor | None:
        """Return what storing values alike makes of them; None where the library only reads."""
        import gguf

        sources = self._names.sources[name]
        kinds = {self._entries[source].kind for source in sources}
        if kinds == {0}:
            return values.float()
        if len(kinds) > 1 or self._names.shifted:
            return None
        kind = gguf.GGMLQuantizationType(kinds.pop())
        turned = self._names.is_transposed(sources[0])
        rows = (values.T if turned else values).float().contiguous().numpy()
        try:
            with np.errstate(all="ignore"):  # values that are NaN or infinite stay so unannounced
                result = gguf.quants.dequantize(gguf.quants.quantize(rows, kind), kind)
        except (NotImplementedError, gguf.quants.QuantError):
            return None
        result = torch.from_numpy(np.array(result.T if turned else result, order="C"))
        return result.reshape(values.shape)

    def _values(self, source: str) -> Array:
        """Return a tensor of the file as float32."""
        import gguf

        entry, (start, size) = self._entries[source], self._starts[source]
        raw = read_elements(self.path, start, size, torch.uint8).numpy()
        rows = (*entry.shape[:-1], -1) if size else (*entry.shape[:-1], 0)
        kind = gguf.GGMLQuantizationType(entry.kind)
        with np.errstate(all="ignore"):
            return np.asarray(gguf.quants.dequantize(raw.reshape(rows), kind), np.float32)

    def _info(self, name: str) -> TensorInfo:
        """Return a tensor's shape, which its parts in the file must fill."""
        shape = self._names.skeleton.shapes[name]
        sources = [self._entries[source] for source in self._names.sources[name]]
        for entry in sources:
            _require_readable(self.path, entry)
        if sum(math.prod(entry.shape) for entry in sources) != math.prod(shape):
            raise InputError(
                f"{self.path}: {shown(sources[0].name)} has not the size of {shape} that the "
                "file's settings give it"
            )
        return TensorInfo(shape, torch.float32)

    def _said(self) -> list[str]:
        used = [self._entries[s] for parts in self._names.sources.values() for s in parts]
        kinds = ", ".join(sorted({_kind_name(entry.kind) for entry in used}))
        count = f"{len(self.tensors)} tensors are dequantised"
        notes = [f"{count} ({kinds}) by {with_version('gguf')}"]
        left = sorted(set(self._entries) - {entry.name for entry in used})
        if left:
            notes.append(
                f"{len(left)} tensors of {self.path.name} have no name in transformers and are "
                f"left out, e.g. {shown(left[0])}"
            )
        return notes


def _require_model(path: Path, header: Header) -> None:
    """Refuse what is no model, or only a part of one."""
    kind = header.settings.get("general.type")
    if kind in _ELSEWHERE:
        raise InputError(f"{path} is {_ELSEWHERE[kind]}")
    parts = header.settings.get("split.count")
    if isinstance(parts, int) and parts > 1:
        raise InputError(
            f"{path} is one of {parts} parts: join them, llama-gguf-split --merge FIRST OUT"
        )


def _places(path: Path, header: Header) -> dict[str, tuple[int, int]]:
    """Return start and size in bytes of every tensor; none lies outside, and no two overlap."""
    import gguf

    places: dict[str, tuple[int, int]] = {}
    for entry in header.entries:
        try:
            block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(entry.kind)]
        except (ValueError, KeyError):
            raise InputError(
                f"{path}: {shown(entry.name)} has the type {entry.kind}, which gguf does not know"
            ) from None
        if entry.shape and entry.shape[-1] % block:
            raise InputError(f"{path}: a row of {shown(entry.name)} is no whole number of blocks")
        places[entry.name] = header.data + entry.start, math.prod(entry.shape) // block * size
    end = header.data
    for name, (start, size) in sorted(places.items(), key=lambda item: item[1]):
        if start < end or start + size > header.size:
            raise InputError(f"{path} is cut off or damaged: {shown(name)} lies where it cannot")
        end = start + size
    return places


def _require_readable(path: Path, entry: Entry) -> None:
    """Refuse a type that the library does not dequantise."""
    import gguf

    kind = gguf.GGMLQuantizationType(entry.kind)
    size = gguf.GGML_QUANT_SIZES[kind][1]
    try:
        gguf.quants.dequantize(np.zeros((1, size), np.uint8), kind)
    except Exception:  # NotImplementedError of a type that it only names
        raise InputError(
            f"{path}: {shown(entry.name)} is {kind.name}, which gguf does not dequantise: "
            "convert the model to F16 with llama-quantize --allow-requantize"
        ) from None


def _kind_name(kind: int) -> str:
    import gguf

    return str(gguf.GGMLQuantizationType(kind).name)


def signs(folder: Path) -> list[str]:
    """Return the GGUF files of a folder."""
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".gguf")


def open_folder(folder: Path, name: str) -> Checkpoint:
    """Open the one GGUF file of a folder.

    Raises:
        InputError: There are several, or it cannot be read.
    """
    several = signs(folder)
    if len(several) > 1:
        shorter = ", ".join(map(shown, several[:3]))
        raise InputError(f"{folder} holds {len(several)} GGUF files, {shorter}: name one")
    path = member(folder, name)
    if path is None:
        raise InputError(f"{folder} has no {name}")
    return open_file(path)


FILES.append(FileFormat("GGUF file", lambda path, head: head.startswith(MAGIC), GgufFile))
FOLDERS.append(FolderFormat("a GGUF file", signs, open_folder, rank=2))
