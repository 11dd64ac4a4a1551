"""A model's folder in Hugging Face's layout: config.json, and weights whole or in shards."""

from __future__ import annotations

from pathlib import Path

from ntk_propulsion.checkpoints.checkpoint import Checkpoint
from ntk_propulsion.checkpoints.files import member, read_json
from ntk_propulsion.checkpoints.folders import entries
from ntk_propulsion.checkpoints.format import FOLDERS, FolderFormat
from ntk_propulsion.checkpoints.opening import open_tensor_file
from ntk_propulsion.checkpoints.tensor_file import TensorFile
from ntk_propulsion.errors import InputError, shown

WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def signs(folder: Path) -> list[str]:
    """Return the files of weights, or of their index, that a folder holds."""
    names = [name for file in WEIGHTS for name in (file, f"{file}.index.json")]
    return [name for name in names if member(folder, name)]


def open_model(folder: Path, name: str) -> Checkpoint:
    """Open a model by its file of weights, or by the index of their shards.

    Raises:
        InputError: A file is missing or damaged.
    """
    if name.endswith(".index.json"):
        checkpoint = _configured(_open_shards(folder, name))
    else:
        checkpoint = open_single(folder, name)
    others = entries(folder, r"(pytorch_)?model_\d{1,4}\.(safetensors|bin)")
    if others:
        checkpoint.notes.append(
            f"{folder.name}: {name} was read; {', '.join(map(shown, others[:4]))} beside it, "
            "other models of the same training, were not"
        )
    return checkpoint


def open_single(folder: Path, name: str) -> Checkpoint:
    """Open a folder whose tensors are all in one file of it, with its config.json if it has one.

    Raises:
        InputError: A file is missing or damaged.
    """
    source = open_source(folder, name)
    words = f"folder with {name}"
    return _configured(Checkpoint(folder, words, dict.fromkeys(source.tensors, source)))


def _configured(checkpoint: Checkpoint) -> Checkpoint:
    """Read the config.json of a checkpoint's folder, if it has one."""
    if config := member(checkpoint.path, "config.json"):
        checkpoint.config = read_json(config)
    return checkpoint


def open_source(folder: Path, name: str) -> TensorFile:
    """Open a file of tensors that lies in a folder."""
    path = member(folder, name)
    if path is None:
        raise InputError(f"{folder} has no {name}")
    return open_tensor_file(path)


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
        shards[file] = open_tensor_file(shard)
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


FOLDERS.append(FolderFormat("a model (model.safetensors or pytorch_model.bin)", signs, open_model))
