"""The folder of a training: its settings, and the last complete checkpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ntk_propulsion.errors import InputError
from ntk_propulsion.runs.files import write_atomically
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
            InputError: It holds a training with other settings.
        """
        self.folder = folder
        path = folder / SETTINGS
        before = _json(path)
        if before is None:
            write_atomically(path, json.dumps(settings))
            return
        other = sorted(key for key in settings if before.get(key) != settings[key])
        if other:
            raise InputError(
                f"{folder} holds a training with another setting of {', '.join(other)}: "
                "name another folder, or empty it"
            )

    def last(self) -> tuple[Path, Progress] | None:
        """Return the last complete checkpoint; those that are not complete are removed."""
        complete = {}
        for path in self.folder.glob("checkpoint-*"):
            try:
                progress = from_json(Progress, (path / STATE).read_text())
            except (OSError, InputError):
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
        if optimiser is not None:
            torch.save(optimiser, path / OPTIMISER)
        write_atomically(path / STATE, to_json(progress))
        for other in self.folder.glob("checkpoint-*"):
            if other != path:
                shutil.rmtree(other)


@torch.no_grad()
def load_trained(checkpoint: Path, trained: Mapping[str, Tensor]) -> None:
    """Write a checkpoint's parameters into those of the same names."""
    saved = load_file(checkpoint / TRAINED)
    for name, parameter in trained.items():
        parameter.copy_(saved[name])


def load_optimiser(checkpoint: Path, optimiser: torch.optim.Optimizer) -> None:
    """Take over the optimiser's state from a checkpoint."""
    optimiser.load_state_dict(torch.load(checkpoint / OPTIMISER, weights_only=True))


def _json(path: Path) -> dict[str, Any] | None:
    """Return what a JSON file holds, None if it is absent or cut off."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
