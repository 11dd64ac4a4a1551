"""A PEFT adapter's folder: adapter_config.json, and the adapter's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ntk_propulsion.checkpoints.checkpoint import Checkpoint
from ntk_propulsion.checkpoints.files import member, read_json
from ntk_propulsion.checkpoints.format import FOLDERS, FolderFormat
from ntk_propulsion.checkpoints.formats.model_folder import open_single
from ntk_propulsion.errors import InputError

WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


def signs(folder: Path) -> list[str]:
    """Return the files of an adapter's weights that a folder holds."""
    return [name for name in WEIGHTS if member(folder, name)]


def open_adapter(folder: Path, name: str) -> Checkpoint:
    """Open an adapter by its file of weights.

    Raises:
        InputError: A file is missing or damaged, or does not say the kind of adapter.
    """
    checkpoint = open_single(folder, name)
    config = member(folder, "config.json")
    if config:
        checkpoint.config = read_json(config)
    checkpoint.adapter_config = _adapter_config(folder)
    return checkpoint


def _adapter_config(folder: Path) -> dict[str, Any]:
    path = member(folder, "adapter_config.json")
    if path is None:
        raise InputError(f"{folder} has an adapter's weights but no adapter_config.json")
    config = read_json(path)
    if not isinstance(config.get("peft_type"), str):
        raise InputError(f"{path} does not say what kind of adapter this is (peft_type)")
    return config


FOLDERS.append(FolderFormat("a PEFT adapter (adapter_model.safetensors)", signs, open_adapter))
