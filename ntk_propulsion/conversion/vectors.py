"""The scaling vectors of a checkpoint: one for each layer, whatever dialect they are written in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from ntk_propulsion.checkpoints import Checkpoint, Dialect, Placement, ScalingVector
from ntk_propulsion.errors import InputError, shown
from ntk_propulsion.models.roles import LAYERS
from ntk_propulsion.models.skeletons import Skeleton
from ntk_propulsion.propulsion.layers import output_size
from ntk_propulsion.propulsion.pooling import POOLINGS, pool

_IA3 = ".ia3_l"
"""What keys of IA3's vectors end with: gains, as columns, not z."""


def scalings_of(checkpoint: Checkpoint, dialect: Dialect) -> dict[str, ScalingVector]:
    """Return the scaling vectors; PEFT's of IA3 too.

    Raises:
        InputError: There are none, or the checkpoint holds something that nobody can place.
    """
    if dialect.unknown:
        count, first = len(dialect.unknown), shown(dialect.unknown[0])
        raise InputError(f"{checkpoint.path} holds {count} keys that fit nothing, e.g. {first}")
    if dialect.name != "peft":
        if not dialect.scalings:
            raise InputError(
                f"{checkpoint.path} is {dialect.words}: it holds no scaling vectors to convert"
            )
        return dialect.scalings
    if dialect.peft_type != "IA3":
        raise InputError(
            f"{checkpoint.path} is {dialect.words}: of PEFT's adapters only the folder of an IA3 "
            "holds scaling vectors"
        )
    return {
        module: ScalingVector(keys, module, Placement.output())
        for module, keys in dialect.factors.items()
    }


def read_vectors(
    checkpoint: Checkpoint,
    dialect: Dialect,
    scalings: Mapping[str, ScalingVector],
    skeleton: Skeleton,
    degree: int | None,
    notes: list[str],
) -> dict[str, Tensor]:
    """Return z of each layer, shape (d_out,): several pooled into one, gains of IA3 as roots.

    Args:
        checkpoint: Where they lie.
        dialect: What it says of them.
        scalings: The vectors by the model's names of their layers.
        skeleton: The model.
        degree: The power k, if anybody said it.
        notes: Takes what one should know.

    Raises:
        InputError: A vector is not finite, does not fit its layer, or has no root.
    """
    vectors: dict[str, Tensor] = {}
    for module, scaling in scalings.items():
        parts = _parts(checkpoint, scaling, module, _width(skeleton, module))
        if scaling.keys[0].endswith(_IA3):
            vectors[module] = _root(parts[0].flatten(), degree or 1, module, notes)
        else:
            vectors[module] = _pooled(checkpoint, parts, dialect.pooling, module)
    return vectors


def pooling_notes(
    checkpoint: Checkpoint, dialect: Dialect, scalings: Iterable[ScalingVector]
) -> list[str]:
    """Say how many layers had several vectors, which are one now."""
    ours = [v for v in scalings if not v.keys[0].endswith(_IA3)]
    several = [v for v in ours if len(v.keys) > 1 or len(checkpoint[v.keys[0]].shape) > 1]
    if not several:
        return []
    return [
        f"the vectors of {len(several)} layers were pooled ({dialect.pooling}) into one each: "
        "the gains are the same, but there is no way back to the several"
    ]


def _parts(checkpoint: Checkpoint, scaling: ScalingVector, module: str, size: int) -> list[Tensor]:
    """Read the vectors of a layer with `size` outputs."""
    parts = [checkpoint.tensor(key) for key in scaling.keys]
    for key, part in zip(scaling.keys, parts, strict=True):
        if not part.is_floating_point() or not part.isfinite().all():
            raise InputError(f"{checkpoint.path}: {shown(key)} holds NaN, infinite or whole values")
        if key.endswith(_IA3):
            _check_ia3(key, part, size)
        elif part.ndim not in (1, 2) or part.shape[-1] != size or not len(part):
            raise InputError(
                f"{checkpoint.path}: {shown(key)} has shape {tuple(part.shape)}, but {module} has "
                f"{size} outputs"
            )
    return parts


def _pooled(
    checkpoint: Checkpoint, parts: list[Tensor], pooling: str | None, module: str
) -> Tensor:
    """Return the one vector that does what several do, shape (d_out,)."""
    if len(parts) > 1 or pooling == "product":
        return torch.stack(parts).prod(0)
    if parts[0].ndim == 2 and pooling not in POOLINGS:
        raise InputError(
            f"{checkpoint.path} does not say how the several vectors of {module} are pooled: give "
            "the adapter file instead"
        )
    return pool(parts[0], pooling or "average", "first")


def _check_ia3(key: str, vector: Tensor, size: int) -> None:
    """Refuse a vector that scales a layer's input, as IA3's feedforward modules have it."""
    if vector.shape == (size, 1):
        return
    why = "scales its layer's input (feedforward_modules)" if len(vector) == 1 else "fits no output"
    raise InputError(f"{shown(key)} of shape {tuple(vector.shape)} {why}: it is no Propulsion")


def _root(gain: Tensor, degree: int, module: str, notes: list[str]) -> Tensor:
    """Return z with z**degree = gain, in the dtype of `gain`."""
    if degree == 1:
        return gain
    if degree % 2 == 0 and bool((gain < 0).any()):
        raise InputError(
            f"{module} has negative gains, which no z**{degree} is: give an odd degree"
        )
    note = f"z are roots of IA3's gains, rounded: z**{degree} gives the gains back to rounding only"
    if note not in notes:
        notes.append(note)
    root = gain.double().abs() ** (1 / degree)
    return (root * gain.sign()).to(gain.dtype)


def _width(skeleton: Skeleton, module: str) -> int:
    """Return how many outputs a layer, or a norm, has."""
    layer = skeleton.modules[module]
    if isinstance(layer, LAYERS):
        return output_size(layer)
    return skeleton.shapes[f"{module}.weight"][-1]
