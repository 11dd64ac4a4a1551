"""What `torch.save` writes of a state dict."""

from __future__ import annotations

from pathlib import Path

from ntk_propulsion.checkpoints.format import FILES, FileFormat
from ntk_propulsion.checkpoints.pickles import PickleFile


def is_pickled(path: Path, head: bytes) -> bool:
    """Tell a zip archive, or a bare pickle; a safetensors header may be 128 bytes long."""
    return head.startswith((b"PK\x03\x04", b"\x80")) and head[8:9] != b"{"


FILES += [
    FileFormat("pickled state dict", is_pickled, PickleFile),
    FileFormat(
        "pickled state dict",
        lambda path, head: path.suffix in (".bin", ".pt", ".pth"),
        PickleFile,
        by_name=True,
    ),
]
