"""A quantised checkpoint, opened as the plain one that it stands for, a tensor at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ntk_propulsion.checkpoints.checkpoint import Checkpoint
from ntk_propulsion.checkpoints.quantisation.scheme import SCHEMES, Found, Sight, Stored
from ntk_propulsion.checkpoints.tensor_file import TensorFile, TensorInfo
from ntk_propulsion.errors import InputError, shown

_SETTINGS = ("quantization_config", "compression_config", "quantization")
"""Keys of config.json: transformers', that of old compressed-tensors, MLX's."""


@dataclass
class Dequantised:
    """The quantised tensors whose codes lie in one file, as floats.

    Attributes:
        path: The file.
        tensors: Shape and dtype of the floats by plain name.
        metadata: Of the file.
        ties: Of the file.
        notes: Of the file.
    """

    path: Path
    metadata: dict[str, str]
    ties: list[tuple[str, ...]]
    notes: list[str]
    tensors: dict[str, TensorInfo] = field(default_factory=dict)
    stored: dict[str, Stored] = field(default_factory=dict)

    def add(self, name: str, stored: Stored) -> None:
        """Take up a tensor under its plain name."""
        self.tensors[name], self.stored[name] = stored.info, stored

    def read(self, name: str) -> Tensor:
        """Return one tensor, dequantised."""
        return self.stored[name].dequantised().contiguous()

    def rounded(self, name: str, values: Tensor) -> Tensor | None:
        """Return what storing values in this scheme makes of them."""
        return self.stored[name].rounded(values)


def dequantised(checkpoint: Checkpoint) -> Checkpoint:
    """Open what is quantised in a checkpoint as floats.

    Returns:
        The checkpoint itself where nothing is quantised; otherwise one with the plain names and
        shapes, whose form and notes say what was dequantised.

    Raises:
        InputError: It is quantised so that nothing here gives its floats, or its parts do not fit
            each other.
    """
    method, settings = _declared(checkpoint)
    sight = Sight(checkpoint, method, settings, frozenset(checkpoint))
    if method is not None and method not in {m for scheme in SCHEMES for m in scheme.methods}:
        raise sight.refused(
            f"is quantised by {shown(method)}, which is not known here",
            "give the weights that it was made from, or dequantise it with its own library",
        )
    found: list[Found] = []
    for scheme in sorted(SCHEMES, key=lambda scheme: scheme.rank):
        result = scheme.find(sight)
        if result.matrices or result.notes or result.hidden:
            found.append(result)
            sight = sight.without(result.keys)
    if any(result.keys for result in found):
        return _opened(checkpoint, found, sight.names)
    checkpoint.notes += [note for result in found for note in result.notes]
    if method is not None:
        checkpoint.notes.append(
            f"the configuration says {shown(method)}, but every matrix is stored in plain floats"
        )
    return checkpoint


def _opened(checkpoint: Checkpoint, found: list[Found], plain: frozenset[str]) -> Checkpoint:
    """Return the checkpoint with its quantised tensors as floats, in the order of its keys."""
    names = {s.parts[0]: (name, s) for result in found for name, s in result.matrices.items()}
    files: dict[Path, Dequantised] = {}
    sources: dict[str, TensorFile] = {}
    for key in checkpoint:
        source = checkpoint.source(key)
        if key in names:
            name, stored = names[key]
            fresh = Dequantised(source.path, source.metadata, source.ties, source.notes)
            file = files.setdefault(source.path, fresh)
            file.add(name, stored)
            sources[name] = file
        elif key in plain:
            sources[key] = source
    words = [result.words for result in found if result.matrices]
    form = ", ".join([checkpoint.form, *([" and ".join(words)] if words else [])])
    opened = Checkpoint(checkpoint.path, form, sources)
    opened.config = _without_settings(checkpoint.config)
    opened.adapter_config = checkpoint.adapter_config
    opened.notes = list(checkpoint.notes)
    for result in found:
        if result.matrices:
            opened.notes.append(f"{len(result.matrices)} matrices are dequantised: {result.words}")
        opened.notes += result.notes
    return opened


def _declared(checkpoint: Checkpoint) -> tuple[str | None, Mapping[str, Any]]:
    """Return the method and its settings that a configuration names, at its top or one below."""
    below = [value for value in checkpoint.config.values() if isinstance(value, dict)]
    for part in (checkpoint.config, *below):
        for key in _SETTINGS:
            settings = part.get(key)
            if isinstance(settings, dict) and settings:
                return _method(checkpoint, key, settings), settings
    return None, {}


def _without_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration as that of the plain model, at its top and one below."""
    kept = {key: value for key, value in config.items() if key not in _SETTINGS}
    return {
        key: {k: v for k, v in value.items() if k not in _SETTINGS}
        if isinstance(value, dict)
        else value
        for key, value in kept.items()
    }


def _method(checkpoint: Checkpoint, key: str, settings: Mapping[str, Any]) -> str | None:
    if settings.get("load_in_4bit") or settings.get("load_in_8bit"):
        return "bitsandbytes"
    method = settings.get("quant_method")
    if method is None:
        return "mlx" if key == "quantization" and "bits" in settings else None
    if not isinstance(method, str):
        raise InputError(f"{checkpoint.path}: quant_method is {shown(method)}, not a name")
    return method.lower().replace("_", "-") if "compressed" in method else method.lower()
