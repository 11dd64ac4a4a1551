"""FSDP's whole state dict, as accelerate and the Trainer write it: one file of weights."""

from __future__ import annotations

from pathlib import Path

from ntk_propulsion.checkpoints.checkpoint import Checkpoint
from ntk_propulsion.checkpoints.files import member, read_json
from ntk_propulsion.checkpoints.format import FOLDERS, FolderFormat
from ntk_propulsion.checkpoints.formats.model_folder import open_single

WEIGHTS = ("pytorch_model_fsdp.bin", "pytorch_model_fsdp.safetensors")


def signs(folder: Path) -> list[str]:
    """Return the files of weights that a folder holds."""
    return [name for name in WEIGHTS if member(folder, name)]


def open_fsdp(folder: Path, name: str) -> Checkpoint:
    """Open a folder by its one file of weights.

    Raises:
        InputError: The file is damaged.
    """
    checkpoint = open_single(folder, name)
    if config := member(folder, "config.json"):
        checkpoint.config = read_json(config)
    return checkpoint


FOLDERS.append(FolderFormat("FSDP's weights (pytorch_model_fsdp.bin)", signs, open_fsdp, rank=1))
