"""What a format is, and the registry of them: `ntk_propulsion.checkpoints.formats` fills it.

A file's format gives a `TensorFile`, a folder's a whole `Checkpoint`. What can be told but not read
(another framework's file, say) is a format too: its opening raises, and says what to run instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ntk_propulsion.checkpoints.checkpoint import Checkpoint
from ntk_propulsion.checkpoints.tensor_file import TensorFile

HEAD = 512
"""Bytes from the beginning of a file that its format is told by: a tar file's mark is at 257."""


@dataclass(frozen=True)
class FileFormat:
    """A format of files.

    Attributes:
        name: In words, e.g. ``"safetensors file"``.
        recognises: Tells from the path and its first `HEAD` bytes whether a file is of this format.
        opens: Opens one; raises `ntk_propulsion.errors.InputError`.
        by_name: Whether it is told by the file's name alone: what its bytes say goes before.
    """

    name: str
    recognises: Callable[[Path, bytes], bool]
    opens: Callable[[Path], TensorFile]
    by_name: bool = False


@dataclass(frozen=True)
class FolderFormat:
    """A format of folders.

    Attributes:
        name: In words, e.g. ``"a PEFT adapter"``.
        signs: Returns the names in a folder that show the format, the one to read first; none if it
            is of another.
        opens: Opens a folder by the first of its signs; raises `ntk_propulsion.errors.InputError`.
        rank: Of two formats that a folder shows, the one of lower rank is read; two of one rank are
            refused. -1: a list of what lies in the folder; 0: weights as they are used; 1, 2: what
            training leaves beside them; `TOLD` and above: what can be told and not read.
    """

    name: str
    signs: Callable[[Path], Sequence[str]]
    opens: Callable[[Path, str], Checkpoint]
    rank: int = 0


TOLD = 9
"""The rank from which on a folder's format can be told and not read."""
FILES: list[FileFormat] = []
FOLDERS: list[FolderFormat] = []
