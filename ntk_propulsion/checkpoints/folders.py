"""Folders within a stranger's folder: right in it, and nowhere else."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from ntk_propulsion.checkpoints.files import inside, member, status
from ntk_propulsion.errors import InputError

ENTRIES = 20_000
"""Names of a folder that are looked at, at most."""
_INSIDE = re.compile(r"(pytorch_model_fsdp_|global_step)\d+")
"""What trainings call the folders of weights in their checkpoints."""


def subfolder(folder: Path, name: str) -> Path | None:
    """Return a folder of a folder, None if there is none of that name.

    Raises:
        InputError: The name is not that of a folder right in this one, or a link leads out of it.
    """
    path = inside(folder, name, "folder")
    if status(path) is None or not path.is_dir():
        return None
    if path.resolve().parent != folder.resolve():
        raise InputError(f"{path} is a link that leads out of its folder: put the folder there")
    return path


def entries(folder: Path, pattern: str) -> list[str]:
    """Return the names in a folder that a regular expression fits, numbers in their order."""
    fits = re.compile(pattern)
    return sorted((name for name in _names(folder) if fits.fullmatch(name)), key=_numbers)


def own_config(home: Path) -> Path | None:
    """Return the config.json of a folder of weights, which trainings keep beside the folder."""
    found = member(home, "config.json")
    if found is None and _INSIDE.fullmatch(home.resolve().name):
        found = member(home.resolve().parent, "config.json")
    return found


def _names(folder: Path) -> Iterator[str]:
    with os.scandir(folder) as found:
        for count, entry in enumerate(found):
            if count >= ENTRIES:
                return
            yield entry.name


def _numbers(name: str) -> tuple[list[int], str]:
    # at most 18 digits: int() of more takes long, and no step has as many
    return [int(digits) for digits in re.findall(r"\d{1,18}", name)], name
