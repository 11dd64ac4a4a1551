"""Where a checkpoint that is given by name lies: packaged, on this machine, or on the hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download

from ntk_propulsion.checkpoints import Checkpoint, open_checkpoint
from ntk_propulsion.checkpoints.files import shown
from ntk_propulsion.errors import InputError
from ntk_propulsion.models.loading import find_checkpoint

FETCHED = ("*.json", "*.safetensors", "pytorch_model*.bin", "adapter_model.bin")
"""What is fetched of a hub repository: weights and configurations, no code."""


def locate(name: str) -> Path:
    """Return the file or folder that a name stands for.

    Args:
        name: ``"minilm"``, a file, a folder, or the id of a repository on the hub, which is
            fetched.

    Raises:
        InputError: There is none of that name.
    """
    path = Path(name).expanduser()
    if name != "minilm" and (path.exists() or path.is_symlink()):
        return path
    found, _ = find_checkpoint(name)
    if Path(found).is_dir():
        return Path(found)
    try:
        return Path(snapshot_download(found, allow_patterns=list(FETCHED)))
    except Exception as error:  # as many kinds as ways to fail between here and the hub
        raise InputError(
            f"{name!r} is neither a file, nor a folder, nor to be had from the hub: "
            f"{shown(str(error))}"
        ) from None


def open_named(name: str) -> Checkpoint:
    """Open the checkpoint that a name stands for; no tensor is read yet.

    Raises:
        InputError: There is none, or it is damaged or more than tensors.
    """
    return open_checkpoint(locate(name))
