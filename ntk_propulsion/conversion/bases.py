"""The plain model that a checkpoint was trained from: where it lies, and whether it is the one."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import torch

from ntk_propulsion.checkpoints import Checkpoint
from ntk_propulsion.conversion.scaled import ScaledModel
from ntk_propulsion.errors import InputError
from ntk_propulsion.models.named import find_model
from ntk_propulsion.propulsion.adapter import fingerprint_of
from ntk_propulsion.propulsion.wrap import plain_parameters


def base_path(base: str | os.PathLike[str] | None) -> Path | None:
    """Return the folder of a base, fetched if it lies on the hub.

    Raises:
        InputError: There is none.
    """
    if base is None:
        return None
    folder = find_model(os.fspath(base)).fetch()
    if not folder.is_dir():
        raise InputError(f"the base {base} is a file: name a model's folder, with its config.json")
    return folder.resolve()


def check_base(model: ScaledModel, checkpoint: Checkpoint) -> None:
    """Check that an adapter was trained on the base that it was read with.

    Raises:
        InputError: It was trained on another.
    """
    trained = {name for name in checkpoint if not name.endswith(".z")}
    wanted = checkpoint.metadata.get("base")
    # A fingerprint is of the parameters as they were loaded; the base may lie in another dtype.
    if all(fingerprint(model, trained, d) != wanted for d in (None, torch.float32, torch.float64)):
        raise InputError(
            f"{checkpoint.path} was trained on another {model.skeleton.class_name} than "
            f"{model.base}: frozen weights differ"
        )


def fingerprint(
    model: ScaledModel, trained: Iterable[str], dtype: torch.dtype | None = None
) -> str:
    """Return what `ntk_propulsion.propulsion.adapter.fingerprint` returns, one tensor at a time.

    Args:
        model: The model.
        trained: Names of the parameters that are left out.
        dtype: Of the parameters when they were loaded; by default as they lie in the file.
    """

    def read(name: str) -> torch.Tensor:
        value = model.weights.read(name)
        return value if dtype is None else value.to(dtype)

    return fingerprint_of(plain_parameters(model.skeleton.model), trained, read)
