"""Zip archives that are no state dict: TorchScript, exported programs, arrays, Keras, zips."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path
from typing import BinaryIO, cast

from ntk_propulsion.checkpoints.formats.foreign_files import ARRAYS, KERAS, Foreign, register

SCRIPT = Foreign(
    "a TorchScript archive, which holds code",
    "if you trust it: torch.save(torch.jit.load(file).state_dict(), 'state.pt'), and give state.pt",
)
EXPORTED = Foreign(
    "a program of torch.export",
    "if you trust it: torch.save(dict(torch.export.load(file).state_dict), 'state.pt'), and give "
    "state.pt",
)
ZIPPED = Foreign("a zip archive of files", "run `unzip` on it, and give the folder that comes out")
_MARKS: tuple[tuple[str, Foreign], ...] = (
    (r"[^/]+/(constants\.pkl|code/.+|\.data/ts_code/.+)", SCRIPT),
    (
        r"serialized_exported_program\.json|([^/]+/)?archive_format|([^/]+/)?models/.+\.json",
        EXPORTED,
    ),
    (r"model\.weights\.h5", KERAS),
    (r".+\.npy", ARRAYS),
)
_LONGEST = 16 * 2**20


class _Directory(io.BufferedIOBase):
    """A file whose list of members is read only if it is no longer than makes sense."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > _LONGEST:
            raise ValueError("a list of members longer than any archive's")
        return self._file.read(_LONGEST if size is None or size < 0 else size)


def zipped(path: Path, head: bytes) -> Foreign | None:
    """Return what a zip archive is of, if torch.save did not write it; None for any other file."""
    if not head.startswith(b"PK\x03\x04"):
        return None
    try:
        with path.open("rb") as file, zipfile.ZipFile(cast(BinaryIO, _Directory(file))) as archive:
            names = archive.namelist()
    except Exception:  # as many kinds as ways to be damaged: who reads it says which
        return None
    for pattern, foreign in _MARKS:
        if any(re.fullmatch(pattern, name) for name in names):
            return foreign
    weights = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", "config.json")
    saved = any(re.fullmatch(r"[^/]+/data\.pkl", name) for name in names)
    return None if saved or not any(n.endswith(weights) for n in names) else ZIPPED


register(zipped, named=False)
