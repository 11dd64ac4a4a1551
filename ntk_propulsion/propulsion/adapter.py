"""A trained Propulsion on disk: one small, self-describing safetensors file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.propulsion.config import PropulsionConfig
from ntk_propulsion.propulsion.wrap import (
    is_wrapped,
    plain_parameters,
    scalings,
    unwrap,
    wrap,
    wrapping,
)
from ntk_propulsion.runs.files import write_atomically
from ntk_propulsion.runs.fingerprint import add_tensor

FORMAT = "ntk_propulsion.adapter"
VERSION = "1"


def save_adapter(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write the scaling vectors and the trained biases and head of a wrapped model.

    The file's metadata hold format, version, configuration (degree, positions, vectors ...) and
    a fingerprint of the frozen parameters. It appears whole or not at all.

    Raises:
        InputError: The model is not wrapped.
    """
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "config": json.dumps(wrapping(model).config.to_dict()),
        "base": fingerprint(model),
        "base_class": type(model).__name__,
    }
    tensors = {name: value.detach().cpu().contiguous() for name, value in _trained(model).items()}
    write_atomically(Path(path), safetensors.torch.save(tensors, metadata))


def load_adapter(model: nn.Module, path: str | os.PathLike[str]) -> nn.Module:
    """Wrap a plain model as the file says and load what was trained.

    Args:
        model: The model that the adapter was trained on: plain, or wrapped with the same settings.
        path: A file of `save_adapter`.

    Returns:
        `model`, wrapped. After an error it is as it was.

    Raises:
        InputError: The file is missing, damaged or of another kind, or was made on another model.
    """
    path = Path(path)
    metadata, tensors = _read(path)
    config = _config(metadata, path)
    was_wrapped = is_wrapped(model)
    if was_wrapped and wrapping(model).config != config:
        raise InputError(
            f"{path} has other settings than the model is wrapped with: unwrap it first"
        )
    if not was_wrapped:
        wrap(model, config)
    try:
        if metadata.get("base") != fingerprint(model):
            raise InputError(
                f"{path} was trained on another {metadata.get('base_class', 'model')} than this "
                f"{type(model).__name__}: frozen weights differ (a head made afresh counts)"
            )
        _load(model, tensors, path)
    except InputError:
        if not was_wrapped:
            unwrap(model)
        raise
    return model


def fingerprint(model: nn.Module) -> str:
    """Return the SHA-256 of a wrapped model's frozen parameters: names, shapes, dtypes, values.

    Buffers and everything that trains are left out, so training does not change it.
    """
    parameters = plain_parameters(model)
    return fingerprint_of(parameters, wrapping(model).trained, parameters.__getitem__)


def fingerprint_of(
    parameters: Mapping[str, nn.Parameter], trained: Iterable[str], read: Callable[[str], Tensor]
) -> str:
    """Return what `fingerprint` does, of values that `read` gives by name, one at a time.

    Args:
        parameters: The plain model's, by all their names: they say which are tied.
        trained: Names of those that are left out.
        read: Returns a parameter's value.
    """
    seen = {id(parameters[name]) for name in trained if name in parameters}
    digest = hashlib.sha256()
    for name, parameter in parameters.items():
        if id(parameter) not in seen:
            seen.add(id(parameter))
            digest.update(name.encode())
            add_tensor(digest, read(name))
    return digest.hexdigest()


def _trained(model: nn.Module) -> dict[str, Tensor]:
    """Return all that an adapter holds, by its name in the file."""
    vectors: dict[str, Tensor] = {
        f"{name}.z": scaling.z for name, scaling in scalings(model).items()
    }
    parameters = plain_parameters(model)
    return vectors | {name: parameters[name] for name in wrapping(model).trained}


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return file.metadata() or {}, {name: file.get_tensor(name) for name in names}
    except FileNotFoundError:
        raise InputError(f"no adapter at {path}") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a whole safetensors file: {error}") from None


def _config(metadata: Mapping[str, str], path: Path) -> PropulsionConfig:
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path} is not a Propulsion adapter: its metadata lack format {FORMAT!r}")
    if metadata.get("version") != VERSION:
        raise InputError(f"{path} has version {metadata.get('version')!r}, not {VERSION!r}")
    try:
        return PropulsionConfig.from_dict({**json.loads(metadata["config"])})
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError):
        raise InputError(f"{path} has no readable configuration in its metadata") from None


def _load(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    wanted = _trained(model)
    for name in [*wanted, *tensors]:
        if name not in tensors:
            raise InputError(f"{path} lacks {name}")
        if name not in wanted:
            raise InputError(f"{path} holds {name}, which this model has no place for")
        if tensors[name].shape != wanted[name].shape:
            raise InputError(
                f"{path}: {name} has shape {tuple(tensors[name].shape)}, "
                f"the model needs {tuple(wanted[name].shape)}"
            )
        if not tensors[name].isfinite().all():
            raise InputError(f"{path}: {name} holds NaN or infinite values")
    with torch.no_grad():
        for name, value in wanted.items():
            value.copy_(tensors[name])
