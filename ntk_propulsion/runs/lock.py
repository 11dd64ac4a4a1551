"""One process at a time: a lock that dies with its process.

The lock is the system's (``flock``), on a file that only marks the place: after a kill the file
stays and blocks nobody. Network file systems that know no locks give none; whoever holds one is
told so.
"""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ntk_propulsion.errors import InputError
from ntk_propulsion.runs.files import make_folder

try:
    import fcntl
except ImportError:  # no such locks on this system
    fcntl = None  # type: ignore[assignment]

LOCK = ".ntk_propulsion.lock"
"""The lock's name in the folder of a run."""
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_HELD: set[int] = set()
"""File descriptors of the locks that this process holds."""


@contextmanager
def locked(path: Path, of: Path) -> Iterator[bool]:
    """Hold a lock while the context lasts; give whether the file system has locks at all.

    Folders that are made for the lock go away with it where nothing else came into them.

    Args:
        path: The lock's file.
        of: The file or folder that the process keeps for itself, for the error.

    Raises:
        InputError: Another process holds it.
        OSError: The file cannot be made.
    """
    made: list[Path] = []
    opened = _taken(path, made)
    if opened is None:
        raise InputError(
            f"{of} is in use by {_holder(path)}: wait for its end, or choose another --out"
        )
    owner = os.getpid()
    _HELD.add(opened.number)
    try:
        yield opened.sure
    finally:
        if os.getpid() == owner:
            with suppress(OSError):
                path.unlink()  # before it is free: whoever comes finds another file, or none
            _HELD.discard(opened.number)
            os.close(opened.number)
            for folder in reversed(made):
                with suppress(OSError):  # not empty: something came of it
                    folder.rmdir()


@dataclass(frozen=True)
class _Opened:
    """An open lock file, and whether it is locked for sure."""

    number: int
    sure: bool


def _taken(path: Path, made: list[Path]) -> _Opened | None:
    """Take a lock; None where another process holds it. Notes which folders were made for it."""
    while True:
        made += make_folder(path.parent)
        try:
            number = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        except FileNotFoundError:  # another process made the folder, and took it away
            continue
        try:
            sure = _lock(number)
            there = os.path.samestat(os.fstat(number), os.lstat(path))
        except BlockingIOError:
            os.close(number)
            return None
        except FileNotFoundError:
            there = False
        except BaseException:
            os.close(number)
            raise
        if there:
            os.ftruncate(number, 0)
            os.pwrite(number, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
            return _Opened(number, sure)
        os.close(number)  # its holder ended meanwhile, and took the file away


def _lock(number: int) -> bool:
    """Lock an open file; False where there are no locks.

    Raises:
        BlockingIOError: Another process has locked it.
    """
    if fcntl is None:
        return False
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise
    return True


def _holder(path: Path) -> str:
    """Return who holds a lock, as far as its file says it."""
    with suppress(OSError):
        said = re.match(r"([0-9]{1,10}) ([\w.-]{1,60})$", path.read_text(errors="replace").strip())
        if said:
            return f"process {said[1]} on {said[2]}"
    return "another process"


def _forget() -> None:
    """A forked child shares the open file: were it to outlive its parent, so would the lock."""
    for opened in _HELD:
        with suppress(OSError):
            os.close(opened)
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
