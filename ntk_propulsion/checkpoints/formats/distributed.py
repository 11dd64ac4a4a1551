"""Folders of `torch.distributed.checkpoint`: .metadata and .distcp files, as FSDP writes them."""

from __future__ import annotations

from pathlib import Path

from ntk_propulsion.checkpoints.checkpoint import Checkpoint
from ntk_propulsion.checkpoints.distributed import TABLE, DistributedFile
from ntk_propulsion.checkpoints.files import member, read_json
from ntk_propulsion.checkpoints.folders import entries, own_config, subfolder
from ntk_propulsion.checkpoints.format import FOLDERS, FolderFormat
from ntk_propulsion.errors import InputError


def signs(folder: Path) -> list[str]:
    """Return what shows the format: its table, its files, or accelerate's folder of them."""
    if member(folder, TABLE) and entries(folder, r".+\.distcp"):
        return [TABLE]
    inner = entries(folder, r"pytorch_model_fsdp_\d{1,3}")
    return [name for name in inner if subfolder(folder, name)] or entries(folder, r".+\.distcp")[:1]


def open_distributed(folder: Path, name: str) -> Checkpoint:
    """Open a folder of .distcp files, or the one that accelerate put inside.

    Raises:
        InputError: The table of contents is missing or damaged, or does not fit the files.
    """
    home = subfolder(folder, name) or folder
    if not member(home, TABLE):
        raise InputError(f"{home} has no {TABLE}: the checkpoint was not finished, or not fetched")
    source = DistributedFile(home)
    form = "folder of torch.distributed.checkpoint"
    checkpoint = Checkpoint(home, form, dict.fromkeys(source.tensors, source))
    if config := own_config(home):
        checkpoint.config = read_json(config)
    return checkpoint


FOLDERS.append(
    FolderFormat("a torch.distributed checkpoint (.metadata)", signs, open_distributed, rank=1)
)
