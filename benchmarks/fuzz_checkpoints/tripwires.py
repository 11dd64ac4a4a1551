"""What no file may cause: a process, a connection, code of its own, a file outside its folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RUNS = (
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty"),
    *("subprocess.Popen", "pty.spawn", "pickle.find_class", "code.__new__", "ctypes.call_function"),
)
REACHES = (
    "socket.connect",
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "socket.bind",
    "socket.sendto",
)
CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.chmod")
CANARY = "fuzz"


class Tripwires:
    """Notes what was touched; a hook of the interpreter, which nothing can take off again.

    Attributes:
        code: Processes and code.
        network: Connections.
        files: Files outside of the folder that were written.
    """

    def __init__(self, folder: Path) -> None:
        self.code: list[str] = []
        self.network: list[str] = []
        self.files: list[str] = []
        self.on = False
        self._inside = (str(folder), "/dev/null")
        # Modules that are imported late are the libraries' own.
        self._ours = tuple(
            {sys.prefix, sys.base_prefix, str(ROOT), os.path.dirname(os.__file__), "<"}
        )
        sys.addaudithook(self._hook)

    def reset(self) -> None:
        """Forget what was touched, and note what is from now on."""
        self.code, self.network, self.files, self.on = [], [], [], True

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event in RUNS:
            self.code.append(f"{event} {str(arguments)[:100]}")
            raise PermissionError(f"{event} is forbidden")
        if event in REACHES:
            self.network.append(f"{event} {str(arguments)[:100]}")
            raise PermissionError(f"{event} is forbidden")
        if event == "exec":
            self._check_code(getattr(arguments[0], "co_filename", ""), arguments[0])
        elif event == "compile" and f"{CANARY}_canary" in str(arguments[0])[:1000]:
            self.code.append("compile of a file's text")
        elif event == "open" and isinstance(arguments[0], str | bytes):
            writes = isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if writes:
                self._check_place(event, os.fsdecode(arguments[0]))
        elif event in CHANGES and isinstance(arguments[0], str | bytes):
            self._check_place(event, os.fsdecode(arguments[0]))

    def _check_code(self, place: str, code: Any) -> None:
        named = f"{CANARY}_canary" in str(getattr(code, "co_names", ""))
        if named or not place.startswith(self._ours):
            self.code.append(f"code of {place}")

    def _check_place(self, event: str, path: str) -> None:
        if not os.path.abspath(path).startswith(self._inside):
            self.files.append(f"{event} {path[:100]}")
