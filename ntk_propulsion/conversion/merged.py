"""A plain model with the gains multiplied into its weights."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn

from ntk_propulsion.conversion.folders import Entry
from ntk_propulsion.conversion.public import plain_entries
from ntk_propulsion.conversion.scaled import ScaledModel
from ntk_propulsion.models.roles import LAYERS

TARGET = "a plain model"

Fold = tuple[Tensor, int]
"""A gain, and the dimension of the weight that it goes along."""


def merged_entries(model: ScaledModel) -> dict[str, Entry]:
    """Return the weights of the plain model with the same outputs.

    A gain behind a LayerNorm goes into it, one behind an MLP's activation into the next layer.
    Tied weights that need different gains are written each under its name; transformers finds them
    different and leaves them untied.

    Raises:
        InputError: A gain cannot go into any weight, or overflows.
    """
    layers = model.expressible(
        TARGET, lambda module: None if _places(model, module) else model.scales_output(module)
    )
    folds = fold_gains(model, layers)
    for tie in model.skeleton.ties:
        _share(model, tie, folds)
    kept = [name for name in model.skeleton.shapes if name not in _repeated(model, folds)]
    entries = plain_entries(model, kept)
    return {
        name: Entry(entry.info, partial(folded, model, name, folds))
        for name, entry in entries.items()
    }


def fold_gains(model: ScaledModel, layers: Iterable[str]) -> dict[str, list[Fold]]:
    """Return the gains of layers that go into each weight, by its name.

    Raises:
        InputError: The degree is unknown, or a gain overflows.
    """
    folds: dict[str, list[Fold]] = {}
    for layer in layers:
        gain = model.gain(layer)
        for name, dimension in _places(model, layer).items():
            if name in model.skeleton.shapes:
                folds.setdefault(name, []).append((gain, dimension))
    return folds


def folded(model: ScaledModel, name: str, folds: dict[str, list[Fold]]) -> Tensor:
    """Return a weight with its gains in it, in its own dtype."""
    value = model.weights.read(name)
    for gain, dimension in folds.get(name, []):
        shape = [1] * value.ndim
        shape[dimension] = -1
        value = (value * gain.reshape(shape)).to(value.dtype)
    return value


def _places(model: ScaledModel, module: str) -> dict[str, int]:
    """Return which weights take a layer's gain, and along which dimension; none if none can."""
    layer = model.skeleton.modules[module]
    parent = module.rpartition(".")[0]
    if model.placements[module].exact is None:
        return {}
    if isinstance(layer, nn.LayerNorm):
        return {f"{module}.weight": 0, f"{module}.bias": 0}
    if model.placements[module].exact:
        # Only a Linear keeps its output dimension first; Conv1D and Embedding keep it last.
        first = isinstance(layer, nn.Linear)
        return {f"{module}.weight": 0 if first else -1, f"{module}.bias": 0}
    if isinstance(layer, nn.Embedding):  # a table of relative positions, which may be normed
        norm = f"{parent}.LayerNorm"
        if norm in model.skeleton.modules:
            return {f"{norm}.weight": 0, f"{norm}.bias": 0}
        return {f"{module}.weight": -1}
    if parent.endswith(".intermediate"):
        return {f"{parent.removesuffix('intermediate')}output.dense.weight": 1}
    return {}


def _share(model: ScaledModel, tie: tuple[str, ...], folds: dict[str, list[Fold]]) -> None:
    """Give a parent that only keeps a parameter of one of its layers the gain of that layer."""
    for name in tie:
        owner = model.skeleton.modules[name.rpartition(".")[0]]
        inside = [n for n in tie if n in folds and n.startswith(f"{name.rpartition('.')[0]}.")]
        if not isinstance(owner, LAYERS) and inside and name not in folds:
            folds[name] = folds[inside[0]]


def _repeated(model: ScaledModel, folds: dict[str, list[Fold]]) -> set[str]:
    """Return the tied names that need no place of their own: equal to the first of their group."""
    repeated: set[str] = set()
    for first, *rest in model.skeleton.ties:
        names = [name for name in rest if name in model.weights]
        if first not in model.weights:
            continue
        value = folded(model, first, folds)
        if all(torch.equal(value, folded(model, name, folds)) for name in names):
            repeated |= set(rest)
        else:
            model.notes.append(
                f"{' and '.join((first, *rest))} were tied, but need different gains: they are "
                "written untied"
            )
    return repeated
