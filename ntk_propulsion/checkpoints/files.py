"""Files from strangers: regular, inside their folder, and JSON that is data and nothing else.

Ours because no library asks these things: `open` waits for a pipe and follows a link anywhere,
`json` takes the second of two equal keys without a word, and a mapped file that shrinks kills the
process.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ntk_propulsion.checkpoints.bounds import is_unicode
from ntk_propulsion.checkpoints.budget import opened, spend
from ntk_propulsion.errors import InputError, shown

JSON_LIMIT = 64 * 2**20
"""Bytes of JSON that are read at most; the index of a model with 100 000 tensors takes 10 MB."""
_DEEPEST = 64
"""Objects within objects: whoever walks through what was read does so in few steps."""
_DIGITS = 300
"""Of a whole number at most: any that is no float's is none of a configuration."""


def status(path: Path) -> os.stat_result | None:
    """Return what the system says of a path, None if nothing is there.

    Raises:
        InputError: The path cannot be followed: a loop of links, no permission, an impossible name.
    """
    try:
        return path.stat()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot open {shown(str(path))}: {reason}") from None


def regular_file(path: Path) -> int:
    """Return the size in bytes of a file that can be opened without waiting for anybody.

    The budget grows with it (`ntk_propulsion.checkpoints.budget`).

    Raises:
        InputError: There is none, or it is a folder, a pipe, a socket or a device.
    """
    found = status(path)
    if found is None:
        raise InputError(f"no file {path}")
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{path} is not a regular file: name a checkpoint's file or folder")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path} may not be read: change its permissions")
    opened(found)
    return found.st_size


def member(folder: Path, name: str) -> Path | None:
    """Return a file of a folder, None if there is none of that name.

    A link may lead to another file of the folder, or to the blobs of a Hugging Face cache, whose
    snapshots consist of such links; to nowhere else.

    Raises:
        InputError: The name is not that of a file right in this folder, a link leads out of it, or
            it is not a regular file.
    """
    path = inside(folder, name, "file")
    if not path.is_symlink() and status(path) is None:
        return None
    regular_file(path)
    home, target = folder.resolve(), path.resolve()
    allowed = [home]
    # a snapshot's own subfolders, as sentence-transformers have them, link to the blobs too
    for place in (home, home.parent):
        if place.parent.name == "snapshots":
            allowed.append(place.parent.parent / "blobs")
    if not any(target.is_relative_to(place) for place in allowed):
        raise InputError(f"{path} is a link that leads out of its folder: put the file there")
    return path


def inside(folder: Path, name: str, kind: str) -> Path:
    """Return the path of a name right in a folder; nothing is looked at.

    Args:
        folder: Where it lies.
        name: As a stranger's file says it.
        kind: ``"file"`` or ``"folder"``, for the error.

    Raises:
        InputError: The name leads elsewhere.
    """
    if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise InputError(f"{folder} names a {kind} {shown(name)}, which is not in this folder")
    return folder / name


def read_json(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Raises:
        InputError: The file is too large, is not JSON, holds no object, or an object in it has the
            same key twice.
    """
    size = regular_file(path)
    if size > JSON_LIMIT:
        raise InputError(f"{path} has {size} bytes of JSON, more than any checkpoint needs")
    spend(size, str(path))
    with path.open("rb") as file:
        return json_object(file.read(JSON_LIMIT), path)


def json_object(text: bytes, path: Path) -> dict[str, Any]:
    """Return the object that a piece of JSON, from `path`, is.

    Raises:
        InputError: It is not JSON or no object, or an object in it has the same key twice.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_int=_whole)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {shown(str(error))}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} holds {shown(value)}, not a JSON object")
    _check_json(value, path)
    return value


def _whole(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise InputError(f"it holds a number of {len(digits)} digits, which no setting has")
    return int(digits)


def _check_json(value: Any, path: Path) -> None:
    """Refuse what JSON can say and nothing that reads it bears: halves of characters, depth."""
    level: list[Any] = [value]
    for _ in range(_DEEPEST):
        texts = [each for each in level if isinstance(each, str)]
        if not all(map(is_unicode, texts)):
            raise InputError(f"{path} holds half a surrogate pair, which is no text")
        spend(at=str(path))
        level = [inner for each in level for inner in _within(each)]
        if not level:
            return
    raise InputError(f"{path} is nested too deeply: more than {_DEEPEST} levels")


def _within(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    return value if isinstance(value, list) else []


def read_elements(path: Path, start: int, count: int, dtype: torch.dtype) -> Tensor:
    """Return `count` elements that lie at byte `start` of a file, in their own memory.

    A mapped file would do without the copy, but every page that was ever read would stay with the
    process, and a file that shrinks meanwhile would kill it.
    """
    if not count:
        return torch.empty(0, dtype=dtype)
    spend(count * dtype.itemsize)
    buffer = bytearray(count * dtype.itemsize)
    with path.open("rb") as file:
        file.seek(start)
        if file.readinto(buffer) != len(buffer):
            raise InputError(f"{path} was cut off while it was read")
    return torch.frombuffer(buffer, dtype=dtype)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise InputError(f"the key {shown(key)} appears twice")
        found[key] = value
    return found
