"""Reads a checkpoint of any dialect into the form between the forms."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ntk_propulsion.checkpoints import (
    Checkpoint,
    Dialect,
    Placement,
    ScalingVector,
    open_checkpoint,
    recognise,
)
from ntk_propulsion.checkpoints.files import member, read_json
from ntk_propulsion.conversion.adapter import check_base
from ntk_propulsion.conversion.scaled import ScaledModel
from ntk_propulsion.conversion.weights import Weights, locate
from ntk_propulsion.errors import InputError, shown
from ntk_propulsion.models.named import find_model
from ntk_propulsion.models.roles import LAYERS
from ntk_propulsion.models.skeletons import Skeleton, build_skeleton
from ntk_propulsion.propulsion.layers import check_degree, output_size
from ntk_propulsion.propulsion.pooling import POOLINGS, pool

_ALONE = ("adapter", "peft")
"""The dialects that hold what was trained and nothing else."""


def read_scaled(
    source: str | os.PathLike[str],
    *,
    base: str | os.PathLike[str] | None = None,
    degree: int | None = None,
) -> tuple[ScaledModel, Dialect]:
    """Read a checkpoint with scaling vectors; of its weights only names and places.

    Args:
        source: The checkpoint, as `open_checkpoint` takes it.
        base: The plain model that it was trained from: a folder, ``"minilm"``, or an id on the hub.
            A checkpoint that holds all its weights can do without.
        degree: The power k of the gains z**k, where the source does not say it. Vectors of IA3 are
            gains: with a degree, z are their roots.

    Returns:
        The model, and the dialect that it was read from.

    Raises:
        InputError: There are no scaling vectors, the base is missing or another, the degree is
            unknown where it is needed or contradicts the source, or a tensor is unusable.
    """
    checkpoint = open_checkpoint(source)
    dialect = recognise(checkpoint)
    scalings = _scalings(checkpoint, dialect)
    base_folder = base_path(base)
    base_checkpoint = open_checkpoint(base_folder) if base_folder else None
    if dialect.name in _ALONE and base_checkpoint is None:
        raise InputError(f"{checkpoint.path} is {dialect.words} without its base: add --base")
    folders = _folders(checkpoint, base_folder)
    skeleton = _skeleton(folders[0], checkpoint.metadata.get("base_class"))
    tuned, names, homeless = locate(checkpoint, dialect.plain, skeleton, scalings)
    notes = _homeless(checkpoint, homeless, skeleton)
    weights, trained = tuned, None
    if base_checkpoint is not None:
        plain = {name: name for name in base_checkpoint}
        frozen, _, _ = locate(base_checkpoint, plain, skeleton)
        trained = _changed(tuned, frozen, skeleton)
        weights = Weights({name: tuned.places[name] for name in trained}).over(frozen)
    elif tuned.missing:
        raise InputError(f"{checkpoint.path} lacks {tuned.missing[0]}: add --base")
    vectors: dict[str, Tensor] = {}
    placements: dict[str, Placement] = {}
    for layer, scaling in scalings.items():
        if layer not in names:
            raise InputError(
                f"{shown(layer)} is scaled, but {skeleton.class_name} has no such layer"
            )
        vectors[names[layer]] = _vector(checkpoint, scaling, dialect.pooling, skeleton, names)
        placements[names[layer]] = scaling.placement
    several = [v for v in scalings.values() if len(v.keys) > 1 or len(checkpoint[v.keys[0]][0]) > 1]
    if several and dialect.name != "peft":
        notes.append(
            f"the vectors of {len(several)} layers were pooled ({dialect.pooling}) into one each: "
            "the gains are the same, but there is no way back to the several"
        )
    vectors = {name: vectors[name] for name in skeleton.modules if name in vectors}
    power = _degree(dialect, degree)
    if dialect.name == "peft":
        vectors = {module: _root(z, power or 1, module, notes) for module, z in vectors.items()}
    config = (checkpoint if folders[0] == checkpoint.path else base_checkpoint or checkpoint).config
    model = ScaledModel(
        skeleton, weights, trained, vectors, placements, power, folders, config,
        None if base is None else os.fspath(base), notes,
    )  # fmt: skip
    if dialect.name == "adapter":
        check_base(model, checkpoint)
    return model, dialect


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


def _skeleton(folder: Path, class_name: str | None) -> Skeleton:
    """Build the model that a folder's config.json describes; an adapter names its class itself."""
    path = member(folder, "config.json")
    if path is None:
        raise InputError(f"{folder} has no config.json: name a folder in Hugging Face's layout")
    try:
        return build_skeleton(read_json(path), class_name)
    except InputError as error:
        raise InputError(f"{folder}: {error}") from None


def _width(skeleton: Skeleton, module: str) -> int:
    """Return how many outputs a layer, or a norm, has."""
    layer = skeleton.modules[module]
    if isinstance(layer, LAYERS):
        return output_size(layer)
    return skeleton.shapes[f"{module}.weight"][-1]


def _scalings(checkpoint: Checkpoint, dialect: Dialect) -> dict[str, ScalingVector]:
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


def _folders(checkpoint: Checkpoint, base: Path | None) -> tuple[Path, ...]:
    """Return the folders that say what model this is, the one to believe first."""
    own = [checkpoint.path] if checkpoint.config.get("architectures") else []
    folders = (*own, *([base] if base else []))
    if not folders:
        raise InputError(f"{checkpoint.path} has no config.json with architectures: add --base")
    return folders


def _homeless(checkpoint: Checkpoint, keys: list[str], skeleton: Skeleton) -> list[str]:
    """Refuse weights that the model has no place for; say which tables of positions go."""
    weights = [key for key in keys if checkpoint[key].dtype.is_floating_point]
    if weights:
        raise InputError(
            f"{checkpoint.path} holds {len(weights)} weights that {skeleton.class_name} has no "
            f"place for, e.g. {shown(weights[0])}: give the config.json of the tuned model with it"
        )
    if not keys:
        return []
    return [f"{len(keys)} tables of whole numbers are left out, e.g. {shown(keys[0])}"]


def _changed(tuned: Weights, frozen: Weights, skeleton: Skeleton) -> tuple[str, ...]:
    """Return the names whose tensors differ from the base's, or that it lacks, in model order."""

    def differs(name: str) -> bool:
        if name not in frozen:
            return True
        if tuned.info(name) != frozen.info(name):
            return True
        return not torch.equal(tuned.read(name), frozen.read(name))

    return tuple(name for name in skeleton.shapes if name in tuned and differs(name))


def _vector(
    checkpoint: Checkpoint,
    scaling: ScalingVector,
    pooling: str | None,
    skeleton: Skeleton,
    names: Mapping[str, str],
) -> Tensor:
    """Return the one vector of a layer, several of them pooled: shape (d_out,)."""
    size = _width(skeleton, names[scaling.module])
    parts = [checkpoint.tensor(key) for key in scaling.keys]
    for key, part in zip(scaling.keys, parts, strict=True):
        if not part.is_floating_point() or not part.isfinite().all():
            raise InputError(f"{checkpoint.path}: {shown(key)} holds NaN, infinite or whole values")
        if key.endswith(".ia3_l"):
            _check_ia3(key, part, size)
        elif part.ndim not in (1, 2) or part.shape[-1] != size or not len(part):
            raise InputError(
                f"{checkpoint.path}: {shown(key)} has shape {tuple(part.shape)}, but "
                f"{names[scaling.module]} has {size} outputs"
            )
    if scaling.keys[0].endswith(".ia3_l"):
        return parts[0].flatten()
    if len(parts) > 1 or pooling == "product":
        return torch.stack(parts).prod(0)
    if parts[0].ndim == 2 and pooling not in POOLINGS:
        raise InputError(
            f"{checkpoint.path} does not say how the several vectors of {names[scaling.module]} "
            "are pooled: give the adapter file instead"
        )
    return pool(parts[0], pooling or "average", "first")


def _check_ia3(key: str, vector: Tensor, size: int) -> None:
    """Refuse a vector that scales a layer's input, as IA3's feedforward modules have it."""
    if vector.shape == (size, 1):
        return
    why = "scales its layer's input (feedforward_modules)" if len(vector) == 1 else "fits no output"
    raise InputError(f"{shown(key)} of shape {tuple(vector.shape)} {why}: it is no Propulsion")


def _degree(dialect: Dialect, given: int | None) -> int | None:
    degree = None if given is None else check_degree(given)
    if degree and dialect.degree and degree != dialect.degree:
        raise InputError(f"--degree {degree}: the source says that its degree is {dialect.degree}")
    known = degree or dialect.degree
    return known or (1 if dialect.name == "peft" else None)


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
