"""The seal: while a stranger's files are read, nothing connects, starts or runs what they name.

One place for it, whatever library asks. The hub's own libraries are told that there is no
connection, so that they look nowhere but on this machine; and Python's audit events, which every
connection, process and import raises, are refused by name. The seal is of the thread that entered
it and of threads that start within; others go on as before, but for the hub, which is offline for
the whole process meanwhile.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any
from weakref import WeakKeyDictionary

from huggingface_hub import constants

from ntk_propulsion.errors import InputError

_CONNECTIONS = frozenset(
    {
        *(f"socket.{name}" for name in ("connect", "bind", "sendto", "sendmsg", "getaddrinfo")),
        *("socket.getnameinfo", "socket.gethostbyname", "socket.gethostbyaddr"),
        *("http.client.connect", "urllib.Request", "ftplib.connect", "webbrowser.open"),
    }
)
_PROCESSES = frozenset(
    {
        *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork"),
        *("os.forkpty", "os.startfile", "pty.spawn"),
    }
)
_CODE = frozenset({"exec", "import"})
_WATCHED = _CONNECTIONS | _PROCESSES | _CODE
_MODULES = "transformers_modules"
"""The package that transformers makes of code that comes with checkpoints."""


class SealedError(InputError, PermissionError):
    """A stranger's files asked for what the seal refuses.

    It is a `PermissionError` too: what only looks for a helper's process goes on without it.
    """


@dataclass(eq=False)
class _Seal:
    """One stay in the sealed context.

    Attributes:
        code: Whether code that came with a checkpoint may run, as the user said.
        shut: Whether the stay lasts.
    """

    code: bool
    shut: bool = True


_current: ContextVar[_Seal | None] = ContextVar("seal", default=None)
_inherited: WeakKeyDictionary[threading.Thread, _Seal] = WeakKeyDictionary()
_lock = threading.RLock()
_plain_start = threading.Thread.start
_stays = 0
_was_offline: Any = None
_watching = False


@contextmanager
def sealed(*, code: bool = False) -> Iterator[None]:
    """Refuse every connection, new process and import of downloaded code while the context lasts.

    What the user names by an id on the hub has to be fetched before.

    Args:
        code: Whether code that came with a checkpoint may run: the user's word about one that is
            trusted. A seal around this one that says no stands.
    """
    outer = _active()
    seal = _Seal(code and (outer is None or outer.code))
    token = _current.set(seal)
    _go_offline()
    try:
        yield
    finally:
        _go_back()
        seal.shut = False
        _current.reset(token)


def _go_offline() -> None:
    global _stays, _was_offline, _watching
    with _lock:
        if not _watching:  # a hook of audit events stays for good: outside it does nothing
            sys.addaudithook(_watch)
            _watching = True
        if _stays == 0:
            _was_offline, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
            threading.Thread.start = _start  # type: ignore[method-assign]
        _stays += 1


def _go_back() -> None:
    global _stays
    with _lock:
        _stays -= 1
        if _stays == 0:
            constants.HF_HUB_OFFLINE = _was_offline
            if threading.Thread.start is _start:
                threading.Thread.start = _plain_start  # type: ignore[method-assign]


def _start(self: threading.Thread) -> None:
    """Start a thread that is sealed as the one that starts it."""
    if (seal := _active()) is not None:
        _inherited[self] = seal
    _plain_start(self)


def _active() -> _Seal | None:
    """Return the seal of this thread, its own or that of the thread that started it."""
    seal = _current.get() or _inherited.get(threading.current_thread())
    return seal if seal is not None and seal.shut else None


def _watch(event: str, details: tuple[Any, ...]) -> None:
    """Refuse an audit event within a seal; elsewhere do nothing, and fast."""
    if event not in _WATCHED or not _stays:
        return
    seal = _active()
    if seal is None:
        return
    if event in _CODE:
        if not seal.code and _is_downloaded(event, details):
            raise SealedError("a checkpoint's files asked for code of their own: it is not run")
    else:
        what = "a connection" if event in _CONNECTIONS else "another process"
        raise SealedError(f"a checkpoint's files asked for {what} ({event}): it is refused")


def _is_downloaded(event: str, details: tuple[Any, ...]) -> bool:
    """Tell whether a module or a piece of code comes from where libraries keep what they fetch."""
    if event == "import":
        name, file = str(details[0]), str(details[1] or "")
        if name.partition(".")[0] == _MODULES:
            return True
    else:
        file = details[0].co_filename if isinstance(details[0], CodeType) else ""
    return any(Path(file).is_relative_to(folder) for folder in _caches()) if file else False


def _caches() -> tuple[str, ...]:
    dynamic = sys.modules.get("transformers.dynamic_module_utils")
    modules = getattr(dynamic, "HF_MODULES_CACHE", constants.HF_HOME)
    return (str(modules), str(constants.HF_HOME), str(constants.HF_HUB_CACHE))
