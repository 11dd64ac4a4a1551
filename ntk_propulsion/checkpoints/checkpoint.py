"""A checkpoint in whatever form it comes: what it holds, and its tensors one at a time."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ntk_propulsion.checkpoints.files import (
    json_object,
    member,
    read_elements,
    read_json,
    regular_file,
    status,
)
from ntk_propulsion.checkpoints.pickles import PickleFile, TensorInfo
from ntk_propulsion.errors import InputError, shown, unknown

ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
MODEL_FILES = ("model.safetensors", "pytorch_model.bin")
TRAINED_FILE = "trained.safetensors"
"""What our own training writes into its checkpoint folders: the trained parameters only."""

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class SafetensorsFile:
    """The tensors of a safetensors file, each read when it is asked for.

    Attributes:
        tensors: Shape and dtype by name.
        metadata: What the file's header says beside the tensors.
        ties: Groups of names that are one tensor, of which the file holds the last.
        notes: Empty.
    """

    def __init__(self, path: Path) -> None:
        """Read the file's header.

        Raises:
            InputError: The file is damaged or holds tensors of a type that torch does not have.
        """
        self.path = path
        self.notes: list[str] = []
        regular_file(path)
        try:
            # The library checks the header: shapes, types, and that offsets tile the file.
            with safe_open(path, framework="pt") as file, path.open("rb") as raw:
                self.metadata: dict[str, str] = file.metadata() or {}
                length = int.from_bytes(raw.read(8), "little")
                header = json_object(raw.read(length), path)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path} is not a whole safetensors file: {error}") from None
        header.pop("__metadata__", None)
        if not header:
            raise InputError(f"{path} holds no tensors")
        for name, entry in header.items():
            if entry["dtype"] not in _DTYPES:
                kind = shown(entry["dtype"])
                raise InputError(f"{path}: {shown(name)} has dtype {kind}, which torch lacks")
        self.tensors = {
            name: TensorInfo(tuple(entry["shape"]), _DTYPES[entry["dtype"]])
            for name, entry in header.items()
        }
        self._starts = {name: 8 + length + e["data_offsets"][0] for name, e in header.items()}
        # safetensors' save_model leaves out all names of a tensor but one, and notes which.
        self.ties = [
            (name, kept)
            for name, kept in self.metadata.items()
            if kept in self.tensors and name not in self.tensors
        ]

    def read(self, name: str) -> Tensor:
        """Return one tensor, in its own memory."""
        shape, dtype = self.tensors[name]
        flat = read_elements(self.path, self._starts[name], math.prod(shape), dtype)
        return flat.reshape(shape)


TensorFile = SafetensorsFile | PickleFile


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
        self.notes: list[str] = [note for source in once.values() for note in source.notes]

    def __getitem__(self, name: str) -> TensorInfo:
        return self._sources[name].tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)

    def __repr__(self) -> str:
        return f"Checkpoint({str(self.path)!r}, {self.form}, {len(self)} tensors)"

    def tensor(self, name: str) -> Tensor:
        """Return one tensor, on the CPU and in the dtype of the file.

        Raises:
            InputError: There is none of that name, it does not fit into the free memory, or the
                file cannot be read any more.
        """
        if name not in self._sources:
            raise unknown("tensor", name, self)
        info = self[name]
        size, free = math.prod(info.shape) * info.dtype.itemsize, psutil.virtual_memory().available
        if size > free:
            raise InputError(
                f"{self.path}: {shown(name)} takes {size / 2**30:.1f} GiB, "
                f"{free / 2**30:.1f} GiB of memory are free"
            )
        try:
            return self._sources[name].read(name)
        except (OSError, RuntimeError, MemoryError) as error:
            raise InputError(f"{self.path}: cannot read {shown(name)}: {error}") from None


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Open a checkpoint from anywhere: nothing in it is run, and no tensor is read yet.

    Args:
        path: A folder of a model in Hugging Face's layout (whole or in shards, safetensors or
            pickles), of a PEFT adapter, or of a training's checkpoint; or a file of tensors:
            safetensors, or what `torch.save` wrote of a state dict.

    Raises:
        InputError: There is nothing, it is damaged, or it is more than tensors.
    """
    path = Path(path).expanduser()
    if status(path) is None:
        raise InputError(f"no checkpoint at {path}")
    if not path.is_dir():
        source = _open_file(path)
        kind = "safetensors file" if isinstance(source, SafetensorsFile) else "pickled state dict"
        return Checkpoint(path, kind, dict.fromkeys(source.tensors, source))
    path = path.resolve()
    name, notes = _choose(path)
    if name.endswith(".index.json"):
        checkpoint = _open_shards(path, name)
    else:
        chosen = member(path, name)
        assert chosen is not None
        source = _open_file(chosen)
        checkpoint = Checkpoint(path, f"folder with {name}", dict.fromkeys(source.tensors, source))
    checkpoint.notes += notes
    config = member(path, "config.json")
    if config:
        checkpoint.config = read_json(config)
    if name in ADAPTER_FILES:
        checkpoint.adapter_config = _adapter_config(path)
    return checkpoint


def _open_file(path: Path) -> TensorFile:
    """Open a file of tensors as what its first bytes say it is."""
    size = regular_file(path)
    with path.open("rb") as file:
        head = file.read(9)
    if size == 0:
        raise InputError(f"{path} is empty")
    if head[8:] == b"{" or path.suffix == ".safetensors":
        return SafetensorsFile(path)
    if head.startswith((b"PK\x03\x04", b"\x80")) or path.suffix in (".bin", ".pt", ".pth"):
        return PickleFile(path)
    raise InputError(f"{path} is not a checkpoint: neither safetensors nor written by torch.save")


def _choose(folder: Path) -> tuple[str, list[str]]:
    """Return which file of a folder to read, and notes on those that are left unread."""
    names = [name for file in MODEL_FILES for name in (file, f"{file}.index.json")]
    groups = {
        "a PEFT adapter": [name for name in ADAPTER_FILES if member(folder, name)],
        "a model": [name for name in names if member(folder, name)],
        "trained parameters": [TRAINED_FILE] if member(folder, TRAINED_FILE) else [],
    }
    present = {what: found for what, found in groups.items() if found}
    if len(present) > 1:
        files = ", ".join(found[0] for found in present.values())
        raise InputError(f"{folder} holds {' and '.join(present)} ({files}): name one of the files")
    if not present:
        raise InputError(_nothing(folder))
    chosen, *rest = next(iter(present.values()))
    return chosen, [f"{folder.name}: {chosen} was read, {other} was not" for other in rest]


def _nothing(folder: Path) -> str:
    """Say what a folder without known weights has instead."""
    wanted = f"{folder} has no {', '.join((*MODEL_FILES, ADAPTER_FILES[0]))} or {TRAINED_FILE}"
    names = sorted(entry.name for entry in os.scandir(folder))
    steps = [name for name in names if name.startswith("checkpoint-")]
    weights = [n for n in names if n.endswith((".safetensors", ".bin", ".pt", ".pth"))]
    if steps:
        return f"{wanted}: name one of its checkpoints, {', '.join(map(shown, steps[:4]))}"
    if weights:
        return f"{wanted}: name one of its files, {', '.join(map(shown, weights[:4]))}"
    return f"{wanted}: it is {'empty' if not names else 'not a checkpoint'}"


def _open_shards(folder: Path, index: str) -> Checkpoint:
    """Open the files that an index names, and check that they hold what it says."""
    path = folder / index
    weights = read_json(path).get("weight_map")
    if not isinstance(weights, dict) or not weights:
        raise InputError(f"{path} has no weight_map from tensors to files")
    for name, file in weights.items():
        if not isinstance(file, str):
            raise InputError(f"{path} gives {shown(name)} no file but {shown(file)}")
    shards: dict[str, TensorFile] = {}
    for file in sorted(set(weights.values())):
        shard = member(folder, file)
        if shard is None:
            raise InputError(f"{path} names {shown(file)}, which is missing: fetch all the shards")
        shards[file] = _open_file(shard)
    for name, file in weights.items():
        if name not in shards[file].tensors:
            raise InputError(f"{path} names {shown(name)} in {file}, which does not hold it")
    files = {name: shards[file] for name, file in weights.items()}
    checkpoint = Checkpoint(folder, f"folder with {len(shards)} shards of {index}", files)
    held = {(name, file) for file, shard in shards.items() for name in shard.tensors}
    if extra := sorted(held - set(weights.items())):
        checkpoint.notes.append(
            f"{index} leaves out {len(extra)} tensors of its shards, e.g. {shown(extra[0][0])}"
        )
    return checkpoint


def _adapter_config(folder: Path) -> dict[str, Any]:
    path = member(folder, "adapter_config.json")
    if path is None:
        raise InputError(f"{folder} has an adapter's weights but no adapter_config.json")
    config = read_json(path)
    if not isinstance(config.get("peft_type"), str):
        raise InputError(f"{path} does not say what kind of adapter this is (peft_type)")
    return config
