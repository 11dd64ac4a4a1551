"""In which dialect a checkpoint says what was tuned, and what each of its keys is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ntk_propulsion.checkpoints.checkpoint import TRAINED_FILE, Checkpoint
from ntk_propulsion.checkpoints.dialect import READERS, Dialect, Keys, Reader
from ntk_propulsion.errors import InputError, shown


def recognise(checkpoint: Checkpoint) -> Dialect:
    """Name the dialect of a checkpoint, and the role of each of its keys.

    Raises:
        InputError: Its keys are of two dialects, or what it says of itself makes no sense.
    """
    return describe_dialect(
        checkpoint,
        metadata=checkpoint.metadata,
        config=checkpoint.config,
        adapter_config=checkpoint.adapter_config,
        trained=all(path.name == TRAINED_FILE for path in checkpoint.files),
    )


def describe_dialect(
    names: Iterable[str],
    *,
    metadata: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
    adapter_config: Mapping[str, Any] | None = None,
    trained: bool = False,
) -> Dialect:
    """Name the dialect that keys are in, and the role of each of them.

    Args:
        names: The keys.
        metadata: Of the safetensors header.
        config: Of config.json.
        adapter_config: Of adapter_config.json.
        trained: Whether the keys are of trained parameters only.

    Raises:
        InputError: The keys are of two dialects, or the configuration makes no sense.
    """
    keys = Keys(tuple(names), metadata or {}, config or {}, adapter_config or {}, trained)
    return _reader(keys).describe(keys)


def _reader(keys: Keys) -> Reader:
    """Return the reader of the dialect that the best evidence there is speaks for.

    Raises:
        InputError: It speaks for two.
    """
    for evidence in ("declared", "shown", "left"):
        candidates = [reader for reader in READERS.values() if reader.evidence == evidence]
        signs = [(reader, reader.signs(keys)) for reader in candidates]
        speaking = [(reader, found) for reader, found in signs if found]
        if len(speaking) > 1:
            examples = " and ".join(f"{shown(s[0])} ({reader.words})" for reader, s in speaking)
            raise InputError(f"the checkpoint mixes two dialects, {examples}: give one of them")
        if speaking:
            return speaking[0][0]
    raise InputError("the checkpoint holds no tensors")
