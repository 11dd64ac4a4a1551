"""Gains multiplied into the weights of a plain model.

Only tensors are at hand, and the modules that will read them, without numbers: a gain goes into a
weight where the module is of a class that is known to multiply with it, or does as much with random
numbers in it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ntk_propulsion.conversion.scaled import ScaledModel
from ntk_propulsion.errors import InputError
from ntk_propulsion.propulsion.commuting import check_layer
from ntk_propulsion.propulsion.layers import PropulsionLayer, Scaling

Fold = tuple[Tensor, int]
"""A gain, and the dimension of the weight that it goes along."""


def fold_gains(model: ScaledModel, layers: Iterable[str]) -> dict[str, list[Fold]]:
    """Return the gains of layers that go into each weight, by its name.

    Raises:
        InputError: The degree is unknown, a gain overflows, or a layer computes more than its
            weight and bias, so that its gain cannot go into them.
    """
    folds: dict[str, list[Fold]] = {}
    for layer in layers:
        gain, places = model.gain(layer), gain_places(model, layer)
        if not torch.all(gain == 1):
            _check(model, layer, places)
        for name, dimension in places.items():
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
    if isinstance(layer, nn.LayerNorm) and _computes_as(layer, nn.LayerNorm):
        return {f"{module}.weight": 0, f"{module}.bias": 0}
    if model.placements[module].exact and not isinstance(layer, nn.LayerNorm):
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


def _check(model: ScaledModel, module: str, places: dict[str, int]) -> None:
    """Check that the module's outputs are scaled where its weight and bias are."""
    layer = model.skeleton.modules[module]
    for name in places:
        weight = name.endswith(".weight")
        if name not in model.skeleton.shapes and (weight or _has_bias(layer)):
            raise InputError(
                f"{module} ({type(layer).__name__}) has no plain {name.rpartition('.')[2]}, so "
                "that its gain cannot go into it: convert to another form"
            )
    if not model.placements[module].exact or isinstance(layer, nn.LayerNorm):
        return
    if getattr(layer, "max_norm", None) is not None:
        raise InputError(f"{module} renormalises its rows (max_norm): its gain cannot be merged")
    if not _computes_as(layer, nn.Linear, Conv1D, nn.Embedding):
        scaling = Scaling(model.vectors[module].float(), model.known_degree())
        check_layer(module, PropulsionLayer(_with_numbers(layer), scaling))


def _computes_as(layer: nn.Module, *kinds: type[nn.Module]) -> bool:
    """Return whether a layer's forward pass is that of one of the classes, and nothing hooks it."""
    own = "forward" in vars(layer) or layer._forward_hooks or layer._forward_pre_hooks
    return not own and any(type(layer).forward is kind.forward for kind in kinds)


def _has_bias(layer: nn.Module) -> bool:
    return isinstance(getattr(layer, "bias", None), Tensor)


def _with_numbers(layer: nn.Module) -> nn.Module:
    """Return a copy of a layer without numbers that has random ones; buffers are ones."""
    filled = copy.deepcopy(layer).to_empty(device="cpu").float()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in filled.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        for buffer in filled.buffers():
            buffer.fill_(1)
    return filled
