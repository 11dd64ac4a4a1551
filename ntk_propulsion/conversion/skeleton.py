"""A model's modules and names without its weights, and where the weights lie on disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
import transformers
from torch import Tensor, nn

from ntk_propulsion.checkpoints import Checkpoint, TensorInfo, align
from ntk_propulsion.checkpoints.files import shown
from ntk_propulsion.errors import InputError
from ntk_propulsion.models.roles import LAYERS
from ntk_propulsion.propulsion.layers import output_size
from ntk_propulsion.runs.quiet import quiet

MOST_LAYERS = 10_000
"""A configuration that asks for more is not built: it would take for ever."""


@dataclass(frozen=True)
class Skeleton:
    """A plain model whose parameters lie on the meta device.

    Attributes:
        model: The model.
    """

    model: nn.Module

    @cached_property
    def modules(self) -> dict[str, nn.Module]:
        """The modules by name."""
        return dict(self.model.named_modules())

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of everything that a checkpoint of the model holds, tied names included."""
        return {name: tuple(value.shape) for name, value in self.model.state_dict().items()}

    @cached_property
    def ties(self) -> list[tuple[str, ...]]:
        """Groups of names that are one parameter."""
        groups: dict[int, list[str]] = {}
        for name, parameter in self.model.named_parameters(remove_duplicate=False):
            groups.setdefault(id(parameter), []).append(name)
        return [tuple(names) for names in groups.values() if len(names) > 1]

    @property
    def class_name(self) -> str:
        """The model's class, as config.json calls it."""
        return type(self.model).__name__

    def size(self, module: str) -> int:
        """Return how many outputs a layer, or a norm, has."""
        layer = self.modules[module]
        if isinstance(layer, LAYERS):
            return output_size(layer)
        return self.shapes[f"{module}.weight"][-1]


def build_skeleton(folder: Path, class_name: str | None = None) -> Skeleton:
    """Build the model that a folder's config.json describes; no weights are read, no code is run.

    Args:
        folder: Holds config.json.
        class_name: The model's class in transformers; by default the one that the file names.

    Raises:
        InputError: The file describes no model of transformers.
    """
    try:
        with quiet():
            config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # transformers raises many kinds for what it cannot read
        text = shown(" ".join(str(error).split()))
        raise InputError(f"{folder} has no config.json of a known model: {text}") from None
    name = class_name or next(iter(getattr(config, "architectures", None) or []), None)
    kind = getattr(transformers, str(name), None)
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        raise InputError(
            f"{folder}/config.json names no class of transformers under architectures, but "
            f"{shown(str(name))}: add it"
        )
    for key, value in config.to_dict().items():
        if "layer" in key and isinstance(value, int) and value > MOST_LAYERS:
            raise InputError(f"{folder}/config.json asks for {value} layers ({shown(key)})")
    try:
        with quiet(), torch.device("meta"):
            return Skeleton(kind(config).eval())
    except Exception as error:  # as many kinds as model classes
        text = shown(" ".join(str(error).split()))
        raise InputError(f"{folder}/config.json does not describe a {name}: {text}") from None


@dataclass(frozen=True)
class Weights:
    """Where the tensors of a plain model lie; each is read when it is asked for.

    Attributes:
        places: The checkpoint and the key in it, by the model's name.
        missing: Names of the model that are nowhere.
    """

    places: Mapping[str, tuple[Checkpoint, str]]
    missing: Sequence[str] = field(default=())

    def __contains__(self, name: str) -> bool:
        return name in self.places

    def info(self, name: str) -> TensorInfo:
        """Return shape and dtype."""
        checkpoint, key = self._place(name)
        return checkpoint[key]

    def read(self, name: str) -> Tensor:
        """Return one tensor.

        Raises:
            InputError: There is none of that name.
        """
        checkpoint, key = self._place(name)
        return checkpoint.tensor(key)

    def over(self, other: Weights) -> Weights:
        """Return these, and the others where there are none of these."""
        places = {**other.places, **self.places}
        return Weights(places, [name for name in other.missing if name not in places])

    def _place(self, name: str) -> tuple[Checkpoint, str]:
        if name not in self.places:
            raise InputError(
                f"neither the source nor the base holds {name}: give a base that was saved with it"
            )
        return self.places[name]


def locate(
    checkpoint: Checkpoint, keys: Mapping[str, str], skeleton: Skeleton, layers: Iterable[str] = ()
) -> tuple[Weights, dict[str, str], list[str]]:
    """Find a model's tensors in a checkpoint, whatever prefixes its names have.

    Args:
        checkpoint: Where to look.
        keys: The keys to look at, with their plain names.
        skeleton: The model.
        layers: Plain names of modules to find too, though the checkpoint may lack their weights.

    Returns:
        The tensors; the model's name of each of `layers` that it has; and the keys without a place.

    Raises:
        InputError: Nothing fits, or a tensor has another shape than in the model.
    """
    key_of = {plain: key for key, plain in keys.items()}
    sought = {f"{layer}.weight": layer for layer in layers}
    ties = [[keys[key] for key in tie if key in keys] for tie in checkpoint.ties]
    aligned = align({**key_of, **sought}, skeleton.shapes, tuned_ties=ties, base_ties=skeleton.ties)
    found = {name: plain for plain, name in aligned.pairs.items() if plain in key_of}
    tied = {name: plain for name, plain in aligned.tied.items() if plain in key_of}
    places = {name: (checkpoint, key_of[plain]) for name, plain in (tied | found).items()}
    for name, (_, key) in places.items():
        if checkpoint[key].shape != skeleton.shapes[name]:
            raise InputError(
                f"{checkpoint.path}: {shown(key)} has shape {checkpoint[key].shape}, "
                f"{skeleton.class_name} needs {skeleton.shapes[name]}"
            )
    names = {
        layer: aligned.pairs[weight].removesuffix(".weight")
        for weight, layer in sought.items()
        if weight in aligned.pairs
    }
    homeless = [key_of[plain] for plain in aligned.only_tuned if plain in key_of]
    missing = [name for name in skeleton.shapes if name not in places]
    return Weights(places, missing), names, homeless
