"""Which format a path is of, and the checkpoint that it holds."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ntk_propulsion.checkpoints.checkpoint import Checkpoint
from ntk_propulsion.checkpoints.files import regular_file, status
from ntk_propulsion.checkpoints.folders import entries
from ntk_propulsion.checkpoints.format import FILES, FOLDERS, HEAD, FileFormat
from ntk_propulsion.checkpoints.quantisation import dequantised
from ntk_propulsion.checkpoints.tensor_file import Configured, TensorFile
from ntk_propulsion.errors import InputError, shown

_STEP = re.compile(r"(checkpoint|epoch|step|iter)[-_=]?\d+.*")
_SHARD = re.compile(r"(model|pytorch_model|adapter_model)-\d+-of-\d+\.(safetensors|bin)")
_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf")
_BESIDE = re.compile(
    r"(optimizer|scheduler|scaler|training_args|rng_state|random_states|sampler|dl_state_dict"
    r"|custom_checkpoint|trainer_state)\w*\.(bin|pt|pth|pkl|json|safetensors)"
)
"""What training keeps beside the weights."""


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Open a checkpoint from anywhere: nothing in it is run, and no tensor is read yet.

    Args:
        path: A folder: of a model in Hugging Face's layout (whole or in shards, safetensors or
            pickles), of sentence-transformers, of an adapter (PEFT's, AdapterHub's), or of a
            training's checkpoint (Trainer, accelerate, DeepSpeed's ZeRO, FSDP through
            `torch.distributed.checkpoint`, our own). Or a file of tensors: safetensors, or what
            `torch.save` wrote of a state dict, alone or within what training code keeps beside it,
            as Lightning does. What else is told is refused with what to run instead.

    Raises:
        InputError: There is nothing, it is damaged, it is more than tensors, of a format that is
            not read, or quantised so that nothing here gives its floats.
    """
    try:
        path = Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"no checkpoint at {path}: {error}") from None
    if status(path) is None:
        if _annexed(path):
            raise InputError(
                f"{path} is a git-annex link to nothing here: run `git annex get` on it"
            )
        raise InputError(f"no checkpoint at {path}")
    return dequantised(_open_folder(path.resolve()) if path.is_dir() else open_file(path))


def open_file(path: Path) -> Checkpoint:
    """Open a file as a checkpoint, as it is stored."""
    format = _file_format(path)
    source = format.opens(path)
    checkpoint = Checkpoint(path, format.name, dict.fromkeys(source.tensors, source))
    if isinstance(source, Configured):
        checkpoint.config = source.config
    return checkpoint


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
    raise InputError(
        f"{path} is of no known format: give safetensors, or what torch.save writes of a state dict"
    )


def _annexed(path: Path) -> bool:
    return path.is_symlink() and "annex/objects" in os.readlink(path)


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
    names = entries(folder, "(?s:.*)")
    links = [name for name in names if _annexed(folder / name) and not (folder / name).exists()]
    if links:
        return (
            f"{folder} holds git-annex links to nothing here, {_few(links)}: run `git annex get .`"
        )
    steps = [name for name in names if _STEP.fullmatch(name) and (folder / name).is_dir()]
    if steps:
        return f"{folder} holds no weights itself: name one of its checkpoints, {_few(steps)}"
    shards = [name for name in names if _SHARD.fullmatch(name)]
    if shards:
        return (
            f"{folder} holds shards ({_few(shards[:1])}) without their index, a .index.json: fetch "
            "the whole folder"
        )
    weights = [n for n in names if n.endswith(_SUFFIXES) and not _BESIDE.fullmatch(n)]
    if weights:
        return f"{folder} is of no known layout: name one of its files, {_few(weights)}"
    beside = [name for name in names if _BESIDE.fullmatch(name)]
    if beside:
        return (
            f"{folder} holds what training keeps beside the weights ({_few(beside)}), and no "
            "weights: give the folder of the model"
        )
    if not names:
        return f"{folder} is no checkpoint: it is empty"
    return (
        f"{folder} is not a checkpoint: no model.safetensors, no pytorch_model.bin, no adapter and "
        "no training's checkpoint is in it"
    )


def _few(names: list[str]) -> str:
    return ", ".join(map(shown, names[:3])) + (" ..." if len(names) > 3 else "")
