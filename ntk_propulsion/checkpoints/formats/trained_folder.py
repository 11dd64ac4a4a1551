"""What our own training keeps of a checkpoint: its trained parameters alone."""

from __future__ import annotations

from pathlib import Path

from ntk_propulsion.checkpoints.checkpoint import TRAINED_FILE
from ntk_propulsion.checkpoints.files import member
from ntk_propulsion.checkpoints.format import FOLDERS, FolderFormat
from ntk_propulsion.checkpoints.formats.model_folder import open_single


def signs(folder: Path) -> list[str]:
    """Return the file of trained parameters, if the folder holds it."""
    return [TRAINED_FILE] if member(folder, TRAINED_FILE) else []


FOLDERS.append(FolderFormat("trained parameters (trained.safetensors)", signs, open_single))
