"""The form between the forms: a plain model, where it was trained, and its scaling vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ntk_propulsion.checkpoints import Placement
from ntk_propulsion.conversion.weights import Weights
from ntk_propulsion.errors import InputError
from ntk_propulsion.models.skeletons import Skeleton


@dataclass(frozen=True)
class ScaledModel:
    """A model whose layers are scaled by gains z**k, in no dialect.

    Attributes:
        skeleton: The plain model's modules and names.
        weights: Its tensors, trained where they were trained.
        trained: Names of the tensors that differ from the base or that it lacks; None if there is
            no base to tell by.
        vectors: z, shape (d_out,), by the plain name of the layer.
        placements: What each scales.
        degree: The power k; None if nobody said it.
        folders: Where config.json and the tokenizer may be, the best first.
        config: What config.json says.
        base: What the base was called; None if there is none.
        notes: What one should know, a sentence each.
    """

    skeleton: Skeleton
    weights: Weights
    trained: tuple[str, ...] | None
    vectors: Mapping[str, Tensor]
    placements: Mapping[str, Placement]
    degree: int | None
    folders: tuple[Path, ...]
    config: Mapping[str, Any]
    base: str | None
    notes: list[str] = field(default_factory=list)

    def known_degree(self) -> int:
        """Return the degree.

        Raises:
            InputError: Nobody said it.
        """
        if self.degree is None:
            raise InputError("the source does not say the degree k of its gains z**k: add --degree")
        return self.degree

    def plain_config(self) -> dict[str, Any]:
        """Return what config.json of the plain model says."""
        config = {key: value for key, value in self.config.items() if key != "degree"}
        return config | {"architectures": [self.skeleton.class_name]}

    def changed(self) -> tuple[str, ...]:
        """Return the names of the trained tensors.

        Raises:
            InputError: There is no base to tell by.
        """
        if self.trained is None:
            raise InputError(
                "what was trained shows only against the model that it was trained from: add --base"
            )
        return self.trained

    def gain(self, module: str) -> Tensor:
        """Return z**k of a layer, shape (d_out,).

        Raises:
            InputError: The degree is unknown, or a gain is beyond what its dtype holds.
        """
        gain = self.vectors[module] ** self.known_degree()
        if not gain.isfinite().all():
            raise InputError(f"the gains z**{self.degree} of {module} overflow {gain.dtype}")
        return gain

    def expressible(self, target: str, reason: Callable[[str], str | None]) -> list[str]:
        """Return the layers whose vectors a target can hold.

        A vector of ones that it cannot hold changes nothing, and is left out with a note.

        Args:
            target: The target, in words.
            reason: Says why a layer's vector does not fit; None if it does.

        Raises:
            InputError: A vector that is not all ones does not fit.
        """
        reasons = {module: reason(module) for module in self.vectors}
        barred = {module: why for module, why in reasons.items() if why}
        wrong = [name for name in barred if not torch.all(self.vectors[name] == 1)]
        if wrong:
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            raise InputError(
                f"{target} cannot hold the vector of {wrong[0]}{more}: {barred[wrong[0]]}"
            )
        if barred:
            self.notes.append(
                f"{len(barred)} vectors of ones, which change nothing, are left out: {target} "
                f"cannot hold them, e.g. that of {next(iter(barred))}"
            )
        return [module for module in self.vectors if module not in barred]

    def scales_output(self, module: str) -> str | None:
        """Return why a vector does not scale its layer's whole output; None if it does."""
        placement = self.placements[module]
        if placement.exact is None:
            return f"it may scale something else than the layer's output ({placement.words})"
        return None if placement.exact else f"it scales something else: {placement.words}"
