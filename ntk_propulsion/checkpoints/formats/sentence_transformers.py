"""sentence-transformers folders: modules.json names the transformer and what follows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from ntk_propulsion.checkpoints.checkpoint import Checkpoint
from ntk_propulsion.checkpoints.files import json_object, member, regular_file
from ntk_propulsion.checkpoints.folders import subfolder
from ntk_propulsion.checkpoints.format import FOLDERS, FolderFormat
from ntk_propulsion.checkpoints.formats import model_folder
from ntk_propulsion.checkpoints.tensor_file import TensorFile, TensorInfo
from ntk_propulsion.errors import InputError, shown

MODULES = "modules.json"
_LIMIT = 2**20
_WITHOUT_WEIGHTS = ("Normalize", "Pooling", "Dropout")
"""Modules whose folder may be absent: it is empty, and packages and git keep no empty folders."""
_MOST = 64


class PrefixedFile:
    """A file of tensors under names with something before them; otherwise as it is."""

    def __init__(self, inner: TensorFile, prefix: str) -> None:
        self._inner, self._prefix = inner, prefix
        self.path, self.metadata, self.notes = inner.path, inner.metadata, inner.notes
        self.tensors: dict[str, TensorInfo] = {prefix + n: i for n, i in inner.tensors.items()}
        self.ties = [tuple(prefix + name for name in tie) for tie in inner.ties]

    def read(self, name: str) -> Tensor:
        """Return one tensor, contiguous, in its own memory."""
        return self._inner.read(name.removeprefix(self._prefix))

    def rounded(self, name: str, values: Tensor) -> Tensor | None:
        """Return what values become when the file stores them under a name, read again."""
        return self._inner.rounded(name.removeprefix(self._prefix), values)


def signs(folder: Path) -> list[str]:
    """Return the list of modules, if a folder has one and weights that it could be about."""
    if member(folder, MODULES) is None:
        return []
    inner = subfolder(folder, "0_Transformer")
    has_weights = model_folder.signs(folder) or (inner and model_folder.signs(inner))
    return [MODULES] if has_weights else []


def open_sentence_transformer(folder: Path, name: str) -> Checkpoint:
    """Open the transformer under its plain names, and later modules under their numbers.

    Raises:
        InputError: A file is missing or damaged, or modules.json makes no sense.
    """
    modules = _modules(folder / name)
    if not modules:
        raise InputError(f"{folder / name} lists no modules")
    first = _place(folder, modules[0][1])
    weights = model_folder.signs(first)
    if not weights:
        raise InputError(f"{first} holds no model.safetensors or pytorch_model.bin")
    transformer = model_folder.open_model(first, weights[0])
    sources: dict[str, TensorFile] = {n: transformer.source(n) for n in transformer}
    notes = list(transformer.notes)
    for kind, path in modules[1:]:
        source = _weights(folder, kind, path)
        if source is None:
            continue
        number = path.partition("_")[0][:8]
        module = PrefixedFile(source, f"{number}.")
        sources |= dict.fromkeys(module.tensors, module)
        notes.append(
            f"{shown(path)} ({shown(kind)}) is read too, its names begin with {shown(number)}"
        )
    checkpoint = Checkpoint(folder, transformer.form, sources)
    checkpoint.config = transformer.config
    checkpoint.notes = notes + [n for n in checkpoint.notes if n not in notes]
    return checkpoint


def _weights(folder: Path, kind: str, path: str) -> TensorFile | None:
    """Return the weights of a later module, None if it has none."""
    if kind in _WITHOUT_WEIGHTS and subfolder(folder, path) is None:
        return None
    place = _place(folder, path)
    found = model_folder.signs(place) if path else []
    return model_folder.open_source(place, found[0]) if found else None


def _place(folder: Path, path: str) -> Path:
    place = subfolder(folder, path) if path else folder
    if place is None:
        raise InputError(f"{folder / MODULES} names {shown(path)}, which is missing: fetch it")
    return place


def _modules(path: Path) -> list[tuple[str, str]]:
    """Return the kind and the folder of every module, in order."""
    if regular_file(path) > _LIMIT:
        raise InputError(f"{path} is too large for a list of modules")
    # the file holds a list, which is put into an object to be read as all other JSON is
    listed = json_object(b'{"modules": ' + path.read_bytes() + b"}", path)["modules"]
    if not isinstance(listed, list) or len(listed) > _MOST:
        raise InputError(f"{path} is no list of modules")
    return [_module(path, entry) for entry in listed]


def _module(path: Path, entry: Any) -> tuple[str, str]:
    kind, place = (entry.get(k) if isinstance(entry, dict) else None for k in ("type", "path"))
    if not isinstance(kind, str) or not isinstance(place, str):
        raise InputError(f"{path} has a module without type or path: {shown(json.dumps(entry))}")
    return kind.rpartition(".")[2], place


FOLDERS.append(
    FolderFormat(
        "a sentence-transformers model (modules.json)", signs, open_sentence_transformer, rank=-1
    )
)
