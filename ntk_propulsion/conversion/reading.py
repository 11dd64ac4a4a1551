"""Reads a checkpoint of any dialect into the form between the forms."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch

from ntk_propulsion.checkpoints import (
    Checkpoint,
    Dialect,
    ScalingVector,
    open_checkpoint,
    recognise,
)
from ntk_propulsion.checkpoints.files import member, read_json
from ntk_propulsion.conversion.bases import base_path, check_base
from ntk_propulsion.conversion.scaled import ScaledModel
from ntk_propulsion.conversion.vectors import pooling_notes, read_vectors, scalings_of
from ntk_propulsion.conversion.weights import Weights, locate
from ntk_propulsion.errors import InputError, shown
from ntk_propulsion.models.limits import Limits
from ntk_propulsion.models.skeletons import Skeleton, build_skeleton
from ntk_propulsion.propulsion.layers import check_degree


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
    scalings = scalings_of(checkpoint, dialect)
    folder = base_path(base)
    plain = open_checkpoint(folder) if folder else None
    if dialect.alone and plain is None:
        raise InputError(f"{checkpoint.path} is {dialect.words} without its base: add --base")
    described = _described(checkpoint, plain)
    skeleton = _skeleton(described[0], checkpoint.metadata.get("base_class"))
    tuned, names, homeless = locate(checkpoint, dialect.plain, skeleton, scalings)
    weights, trained = _over_base(tuned, plain, skeleton, checkpoint)
    named = _named(scalings, names, skeleton)
    notes = [
        *_homeless(checkpoint, homeless, skeleton),
        *pooling_notes(checkpoint, dialect, named.values()),
    ]
    power = _degree(dialect, degree)
    model = ScaledModel(
        skeleton=skeleton,
        weights=weights,
        trained=trained,
        vectors=read_vectors(checkpoint, dialect, named, skeleton, power, notes),
        placements={name: scaling.placement for name, scaling in named.items()},
        degree=power,
        folders=tuple(one.path for one in described),
        config=described[0].config,
        base=None if base is None else os.fspath(base),
        notes=notes,
    )
    if dialect.name == "adapter":
        check_base(model, checkpoint)
    return model, dialect


def _described(checkpoint: Checkpoint, base: Checkpoint | None) -> tuple[Checkpoint, ...]:
    """Return those whose folders say what model this is, the one to believe first."""
    own = [checkpoint] if checkpoint.config.get("architectures") else []
    described = (*own, *([base] if base else []))
    if not described:
        raise InputError(f"{checkpoint.path} has no config.json with architectures: add --base")
    return described


def _skeleton(described: Checkpoint, class_name: str | None) -> Skeleton:
    """Build the model that a folder's config.json describes; an adapter names its class itself."""
    folder = described.path
    path = member(folder, "config.json")
    if path is None:
        raise InputError(f"{folder} has no config.json: name a folder in Hugging Face's layout")
    try:
        return build_skeleton(read_json(path), class_name, limits=Limits(len(described)))
    except InputError as error:
        raise InputError(f"{folder}: {error}") from None


def _over_base(
    tuned: Weights, base: Checkpoint | None, skeleton: Skeleton, checkpoint: Checkpoint
) -> tuple[Weights, tuple[str, ...] | None]:
    """Return a model's tensors, trained where they were, and the names of those that were.

    Raises:
        InputError: Tensors are missing and there is no base to take them from.
    """
    if base is None:
        if tuned.missing:
            raise InputError(f"{checkpoint.path} lacks {tuned.missing[0]}: add --base")
        return tuned, None
    frozen, _, _ = locate(base, {name: name for name in base}, skeleton)
    trained = _changed(tuned, frozen, skeleton)
    return Weights({name: tuned.places[name] for name in trained}).over(frozen), trained


def _named(
    scalings: Mapping[str, ScalingVector], names: Mapping[str, str], skeleton: Skeleton
) -> dict[str, ScalingVector]:
    """Return the scaling vectors by the model's names of their layers, in model order."""
    for layer in scalings:
        if layer not in names:
            raise InputError(
                f"{shown(layer)} is scaled, but {skeleton.class_name} has no such layer"
            )
    named = {names[layer]: scaling for layer, scaling in scalings.items()}
    return {name: named[name] for name in skeleton.modules if name in named}


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


def _degree(dialect: Dialect, given: int | None) -> int | None:
    degree = None if given is None else check_degree(given)
    if degree and dialect.degree and degree != dialect.degree:
        raise InputError(f"--degree {degree}: the source says that its degree is {dialect.degree}")
    known = degree or dialect.degree
    return known or (1 if dialect.name == "peft" else None)
