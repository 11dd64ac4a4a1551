"""FSDP's whole state dict, as accelerate and the Trainer write it: one file of weights."""

from __future__ import annotations

from pathlib import Path

from ntk_propulsion.checkpoints.files import member
from ntk_propulsion.checkpoints.format import FOLDERS, FolderFormat
from ntk_propulsion.checkpoints.formats.model_folder import open_single

WEIGHTS = ("pytorch_model_fsdp.bin", "pytorch_model_fsdp.safetensors")


def signs(folder: Path) -> list[str]:
    """Return the files of weights that a folder holds."""
    return [name for name in WEIGHTS if member(folder, name)]


FOLDERS.append(FolderFormat("FSDP's weights (pytorch_model_fsdp.bin)", signs, open_single, rank=1))
