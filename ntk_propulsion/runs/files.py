"""Files and folders that are whole or absent, whenever a process is killed or the power fails.

What is being written has a name of its own, ``.NAME.PID``, beside the name that it will take: a
kill leaves that and nothing else. Contents reach the disk before the name does, and the name
before this returns.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NO_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES)
"""What file systems answer that cannot write a folder's entries to the disk when asked."""


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a file so that a reader, or a kill, never meets half of it.

    Args:
        path: Its folder is made if need be.
        content: Text is written as UTF-8.
    """
    make_folder(path.parent)
    data = content.encode() if isinstance(content, str) else content
    temporary = temporary_of(path)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush(path.parent)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a folder to fill, which takes the name `path` at the end, or leaves nothing.

    Args:
        path: Nothing, or an empty folder, must be there.
    """
    temporary = temporary_of(path)
    try:
        make_folder(path.parent)
        shutil.rmtree(temporary, ignore_errors=True)  # of a dead process of the same number
        temporary.mkdir()
        yield temporary
        for each in [*temporary.rglob("*"), temporary]:
            flush(each)
        os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    flush(path.parent)


def make_folder(path: Path) -> list[Path]:
    """Make a folder, and those above it that are missing; return what was made, outermost first."""
    missing = [each for each in (path, *path.parents) if not each.exists()]
    made = []
    for each in reversed(missing):
        try:
            each.mkdir()
        except FileExistsError:
            if not each.is_dir():
                raise
        else:
            made.append(each)
            flush(each.parent)
    return made


def remove(path: Path) -> None:
    """Remove a file if it is there, for good before anything that follows."""
    if path.exists() or path.is_symlink():
        path.unlink(missing_ok=True)
        flush(path.parent)


def flush(path: Path) -> None:
    """Write a file's contents, or a folder's entries, to the disk."""
    folder = path.is_dir()
    try:
        opened = os.open(path, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
    except OSError as error:
        if not (folder and error.errno in _NO_FOLDERS):
            raise


def is_leftover(name: str, of: str) -> bool:
    """Tell whether a name is that of a half-written file of another name.

    Examples:
        >>> is_leftover(".report.json.4711", "report.json")
        True
        >>> is_leftover(".report.json.swp", "report.json")
        False
    """
    return re.fullmatch(rf"\.{re.escape(of)}\.[0-9]+", name) is not None


def leftovers(folder: Path, pattern: str = "*") -> list[Path]:
    """Return what dead writers left half-written of files or folders of such names.

    Args:
        folder: Where they lie.
        pattern: A glob pattern of the names that they would have had, relative to the folder.
    """
    above, _, name = pattern.rpartition("/")
    found = folder.glob(f"{above}/.{name}.*" if above else f".{name}.*")
    return sorted(path for path in found if re.search(r"\.[0-9]+$", path.name))


def remove_leftover(path: Path) -> None:
    """Remove a half-written file or folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def temporary_of(path: Path) -> Path:
    """Return the name under which this process writes what will take the name `path`."""
    return path.with_name(f".{path.name}.{os.getpid()}")
