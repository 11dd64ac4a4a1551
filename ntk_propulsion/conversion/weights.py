"""Where on disk the tensors of a model lie, whatever a checkpoint calls them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ntk_propulsion.checkpoints import Checkpoint, TensorInfo, align
from ntk_propulsion.errors import InputError, shown
from ntk_propulsion.models.skeletons import Skeleton


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
