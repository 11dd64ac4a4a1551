"""Gains multiplied into the weights of a plain model."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from ntk_propulsion.conversion.scaled import ScaledModel

Fold = tuple[Tensor, int]
"""A gain, and the dimension of the weight that it goes along."""


def fold_gains(model: ScaledModel, layers: Iterable[str]) -> dict[str, list[Fold]]:
    """Return the gains of layers that go into each weight, by its name.

    Raises:
        InputError: The degree is unknown, or a gain overflows.
    """
    folds: dict[str, list[Fold]] = {}
    for layer in layers:
        gain = model.gain(layer)
        for name, dimension in gain_places(model, layer).items():
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


def gain_places(model: ScaledModel, module: str) -> dict[str, int]:
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
