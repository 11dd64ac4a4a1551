"""A PEFT adapter's folder: adapter_config.json, and the adapter's weights.

PEFT saves the adapter called "default" right there, and every other in a folder of its name.
"""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path
from typing import Any

from ntk_propulsion.checkpoints.checkpoint import Checkpoint
from ntk_propulsion.checkpoints.files import member, read_json
from ntk_propulsion.checkpoints.format import FOLDERS, FolderFormat
from ntk_propulsion.checkpoints.formats.model_folder import open_single
from ntk_propulsion.errors import InputError, shown

WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
CONFIG = "adapter_config.json"
_KIND = re.compile(r"[A-Za-z0-9_]{1,40}")
_MOST = 1000
"""Entries of a folder that are looked at for adapters below it."""


def signs(folder: Path) -> list[str]:
    """Return the files of an adapter's weights that a folder holds."""
    return [name for name in WEIGHTS if member(folder, name)]


def open_adapter(folder: Path, name: str) -> Checkpoint:
    """Open an adapter by its file of weights.

    Raises:
        InputError: A file is missing or damaged, or does not say the kind of adapter.
    """
    checkpoint = open_single(folder, name)
    checkpoint.adapter_config = _adapter_config(folder)
    others = adapters_below(folder)
    if others:
        checkpoint.notes.append(
            f"{folder.name} holds other adapters too, {_names(others)}: name the folder of one to "
            "audit it"
        )
    return checkpoint


def adapters_below(folder: Path) -> list[str]:
    """Return the folders right in a folder that hold an adapter each, by name."""
    with os.scandir(folder) as entries:
        some = itertools.islice(entries, _MOST)
        below = [entry for entry in some if entry.is_dir(follow_symlinks=False)]
    return sorted(entry.name for entry in below if _holds_adapter(entry.path))


def _holds_adapter(folder: str) -> bool:
    weights = any(os.path.isfile(os.path.join(folder, name)) for name in WEIGHTS)
    return weights and os.path.isfile(os.path.join(folder, CONFIG))


def open_below(folder: Path, name: str) -> Checkpoint:
    """Open the one adapter that lies in a folder of its name.

    Raises:
        InputError: There are several, or it cannot be read.
    """
    found = adapters_below(folder)
    if len(found) > 1:
        raise InputError(
            f"{folder} holds {len(found)} PEFT adapters, {_names(found)}: name the folder of one"
        )
    inside = folder / name
    weights = signs(inside)
    if not weights:
        raise InputError(f"{inside} has an {CONFIG} but no adapter's weights")
    checkpoint = open_adapter(inside, weights[0])
    checkpoint.notes.append(f"the adapter in {shown(name)} was read, the only one in {folder.name}")
    return checkpoint


def _names(found: list[str]) -> str:
    said = ", ".join(map(shown, found[:4]))
    return said if len(found) <= 4 else f"{said} and {len(found) - 4} more"


def _adapter_config(folder: Path) -> dict[str, Any]:
    path = member(folder, CONFIG)
    if path is None:
        raise InputError(f"{folder} has an adapter's weights but no {CONFIG}")
    config = read_json(path)
    kind = config.get("peft_type")
    if not isinstance(kind, str) or not _KIND.fullmatch(kind):
        said = f": {shown(kind)} is none" if isinstance(kind, str) else ""
        raise InputError(f"{path} does not say what kind of adapter this is (peft_type){said}")
    return config


FOLDERS.append(FolderFormat("a PEFT adapter (adapter_model.safetensors)", signs, open_adapter))
FOLDERS.append(
    FolderFormat("folders of PEFT adapters", adapters_below, open_below, rank=3),
)
