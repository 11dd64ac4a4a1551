"""Which format a path is of, and the checkpoint that it holds."""

from __future__ import annotations

import os
from pathlib import Path

from ntk_propulsion.checkpoints.checkpoint import Checkpoint
from ntk_propulsion.checkpoints.files import regular_file, status
from ntk_propulsion.checkpoints.format import FILES, FOLDERS, HEAD, FileFormat
from ntk_propulsion.checkpoints.tensor_file import TensorFile
from ntk_propulsion.errors import InputError, shown


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Open a checkpoint from anywhere: nothing in it is run, and no tensor is read yet.

    Args:
        path: A folder of a model in Hugging Face's layout (whole or in shards, safetensors or
            pickles), of a PEFT adapter, or of a training's checkpoint; or a file of tensors:
            safetensors, or what `torch.save` wrote of a state dict.

    Raises:
        InputError: There is nothing, it is damaged, or it is more than tensors.
    """
    try:
        path = Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"no checkpoint at {path}: {error}") from None
    if status(path) is None:
        raise InputError(f"no checkpoint at {path}")
    if not path.is_dir():
        format = _file_format(path)
        source = format.opens(path)
        return Checkpoint(path, format.name, dict.fromkeys(source.tensors, source))
    return _open_folder(path.resolve())


def open_tensor_file(path: Path) -> TensorFile:
    """Open a file of tensors as what its first bytes say it is.

    Raises:
        InputError: It is of no known format, or damaged.
    """
    return _file_format(path).opens(path)


def _file_format(path: Path) -> FileFormat:
    size = regular_file(path)
    if size == 0:
        raise InputError(f"{path} is empty")
    with path.open("rb") as file:
        head = file.read(HEAD)
    for format in sorted(FILES, key=lambda format: format.by_name):
        if format.recognises(path, head):
            return format
    raise InputError(f"{path} is not a checkpoint: neither safetensors nor written by torch.save")


def _open_folder(folder: Path) -> Checkpoint:
    """Open a folder as the one format of the lowest rank that it shows."""
    present = [(format, signs) for format in FOLDERS if (signs := format.signs(folder))]
    if not present:
        raise InputError(_nothing(folder))
    lowest = min(format.rank for format, _ in present)
    best = [(format, signs) for format, signs in present if format.rank == lowest]
    if len(best) > 1:
        kinds = " and ".join(format.name for format, _ in best)
        files = ", ".join(signs[0] for _, signs in best)
        raise InputError(f"{folder} holds {kinds} ({files}): name one of the files")
    format, (chosen, *rest) = best[0]
    checkpoint = format.opens(folder, chosen)
    checkpoint.notes += [f"{folder.name}: {chosen} was read, {other} was not" for other in rest]
    return checkpoint


def _nothing(folder: Path) -> str:
    """Say what a folder without known weights has instead."""
    kinds = ", ".join(dict.fromkeys(format.name for format in FOLDERS))
    wanted = f"{folder} holds none of {kinds}"
    names = sorted(entry.name for entry in os.scandir(folder))
    steps = [name for name in names if name.startswith("checkpoint-")]
    weights = [n for n in names if n.endswith((".safetensors", ".bin", ".pt", ".pth"))]
    if steps:
        return f"{wanted}: name one of its checkpoints, {', '.join(map(shown, steps[:4]))}"
    if weights:
        return f"{wanted}: name one of its files, {', '.join(map(shown, weights[:4]))}"
    return f"{wanted}: it is {'empty' if not names else 'not a checkpoint'}"
