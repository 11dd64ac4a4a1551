"""The folder of a training: its settings, and the last complete checkpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ntk_propulsion.errors import InputError
from ntk_propulsion.runs.files import flush, write_atomically
from ntk_propulsion.runs.records import from_json, to_json

SETTINGS, STATE, TRAINED, OPTIMISER = (
    "settings.json",
    "state.json",
    "trained.safetensors",
    "optimizer.pt",
)


@dataclass(frozen=True)
class Progress:
    """How far a training has come.

    Attributes:
        losses: Of the steps so far.
        seconds: Spent in them.
    """

    losses: tuple[float, ...]
    seconds: float


class SavedTraining:
    """A training's folder. ``state.json`` of a checkpoint, written last, says that it is whole."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """Take up a folder, or claim it.

        Raises:
            InputError: It holds a training with other settings, or with damaged ones.
        """
        self.folder = folder
        path = folder / SETTINGS
        before = _settings(path)
        if before is None:
            write_atomically(path, json.dumps(settings))
            return
        other = sorted(key for key in settings if before.get(key) != settings[key])
        if other:
            raise InputError(
                f"{folder} holds a training with another setting of {', '.join(other)}: {_MEND}"
            )

    def last(self) -> tuple[Path, Progress] | None:
        """Return the last complete checkpoint; those that are not complete are removed."""
        complete = {}
        for path in self.folder.glob("checkpoint-*"):
            try:
                progress = from_json(Progress, (path / STATE).read_text())
            except (OSError, ValueError):
                shutil.rmtree(path)
            else:
                complete[len(progress.losses)] = path, progress
        return complete[max(complete)] if complete else None

    def save(
        self,
        progress: Progress,
        trained: Mapping[str, Tensor],
        optimiser: Mapping[str, Any] | None,
    ) -> None:
        """Write a checkpoint; the ones before it go away.

        Args:
            progress: How far the training has come.
            trained: The trained parameters by name, tied ones once.
            optimiser: Its state; None after the last step, when nobody needs it.
        """
        path = self.folder / f"checkpoint-{len(progress.losses)}"
        path.mkdir(parents=True, exist_ok=True)
        tensors = {name: p.detach().cpu().contiguous() for name, p in trained.items()}
        save_file(tensors, path / TRAINED)
        flush(path / TRAINED)
        if optimiser is not None:
            torch.save(optimiser, path / OPTIMISER)
            flush(path / OPTIMISER)
        write_atomically(path / STATE, to_json(progress))
        for other in self.folder.glob("checkpoint-*"):
            if other != path:
                shutil.rmtree(other)


@torch.no_grad()
def load_trained(checkpoint: Path, trained: Mapping[str, Tensor]) -> None:
    """Write a checkpoint's parameters into those of the same names.

    Raises:
        InputError: They are missing, damaged, or of other parameters; nothing is written.
    """
    path = checkpoint / TRAINED
    try:
        saved = load_file(path)
    except (OSError, SafetensorError) as error:
        raise _damaged(path) from error
    shapes = {name: tensor.shape for name, tensor in saved.items()}
    if shapes != {name: parameter.shape for name, parameter in trained.items()}:
        raise InputError(f"{path} holds other parameters than those that train: {_MEND}")
    for name, parameter in trained.items():
        parameter.copy_(saved[name])


def load_optimiser(checkpoint: Path, optimiser: torch.optim.Optimizer) -> None:
    """Take over the optimiser's state from a checkpoint.

    Raises:
        InputError: It is missing, damaged, or of another optimiser.
    """
    path = checkpoint / OPTIMISER
    try:
        optimiser.load_state_dict(torch.load(path, weights_only=True))
    except (OSError, EOFError, UnpicklingError, RuntimeError, LookupError, ValueError) as error:
        raise _damaged(path) from error


_MEND = "name another folder, or empty it"


def _damaged(path: Path) -> InputError:
    return InputError(f"{path} is missing or damaged: {_MEND}")


def _settings(path: Path) -> dict[str, Any] | None:
    """Return a training's settings, None where there are none."""
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise _damaged(path) from error
    if not isinstance(found, dict):
        raise _damaged(path)
    return found
