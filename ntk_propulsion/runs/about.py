"""What ``run.json`` says: the settings of a run, and under what conditions it was computed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ntk_propulsion.errors import InputError
from ntk_propulsion.runs.conditions import Conditions
from ntk_propulsion.runs.files import write_atomically
from ntk_propulsion.runs.records import from_plain, to_json

FILE = "run.json"
FORMAT = "ntk_propulsion.run/2"
_FIRST_FORMAT = "ntk_propulsion.run/1"
"""Of versions that recorded no conditions."""


@dataclass(frozen=True)
class About:
    """What a run is.

    Attributes:
        settings: What its results depend on, as JSON holds it.
        conditions: Those of the process that works on it, or did last; None if not recorded.
        earlier: Those of processes before, where they were others.
    """

    settings: dict[str, Any]
    conditions: Conditions | None = None
    earlier: tuple[Conditions | None, ...] = ()


def is_run(folder: Path) -> bool:
    """Tell whether a folder's run.json is of a run of ours, damaged or not."""
    return _plain(folder / FILE) is not None


def read_about(folder: Path) -> About:
    """Read the run.json of a folder.

    Raises:
        InputError: It is not of a run, or damaged.
    """
    path = folder / FILE
    found = _plain(path)
    if found is None:
        raise InputError(f"{folder} holds files that are not of a run: choose another --out")
    try:
        return from_plain(About, found)
    except InputError as error:
        raise InputError(f"{path} is damaged ({error}): begin anew with --overwrite") from error


def write_about(folder: Path, about: About) -> None:
    """Write the run.json of a folder."""
    plain = json.loads(to_json({"conditions": about.conditions, "earlier": about.earlier}))
    content = {"format": FORMAT, "settings": about.settings, **plain}
    write_atomically(folder / FILE, json.dumps(content, indent=1) + "\n")


def _plain(path: Path) -> dict[str, Any] | None:
    """Return what a run.json holds; None where it is not of a run of ours."""
    try:
        found = json.loads(path.read_text()) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None
    ours = isinstance(found, dict) and found.get("format") in (FORMAT, _FIRST_FORMAT)
    return found if ours else None
