"""Folds the gains of a wrapped model into plain weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.propulsion.commuting import check_layer, check_model
from ntk_propulsion.propulsion.folds import agree, uses_of, write
from ntk_propulsion.propulsion.wrap import check_unhooked, propulsion_layers, unwrap, wrapping


@torch.no_grad()
def merge(model: nn.Module, *, untie: bool = False, batch: Any = None) -> nn.Module:
    """Multiply every gain into its layer's weight and bias and remove the scalings, in place.

    The outputs stay the same up to rounding. That is checked before anything is changed: of each
    layer on random inputs, and of the whole model on `batch`, or on an input that is guessed.
    Parameters require gradients as before `wrap`.

    Args:
        model: A wrapped model.
        untie: What to do with a weight that several layers share but that needs a different gain
            in each (an embedding and the language-model head tied to it): False refuses, True gives
            each layer its own copy. transformers reloads such copies untied, since it finds them
            different; do not call `tie_weights` on the model afterwards.
        batch: What the model takes, for one run of the whole: a dict, a tuple or a tensor. Models
            of transformers, and those that take token numbers, vectors or images, do without.

    Returns:
        `model`, of plain layers.

    Raises:
        InputError: The model is not wrapped, a tied weight needs different gains, a layer has no
            plain floating-point weight to fold into, or outputs would change: a layer computes
            more than its weight and bias, or something else reads its weight. Also where that
            cannot be checked because no batch is given and no guess runs. The model is then
            unchanged.
    """
    wrapping(model)
    layers = propulsion_layers(model)
    check_unhooked(model)
    for name, layer in layers.items():
        _require_foldable(name, layer.base)
    groups = uses_of(model, {n: layer.scaling.gain().detach() for n, layer in layers.items()})
    apart = next((group for group in groups if not agree(group)), None)
    if apart and not untie:
        places = " and ".join(use.place for use in apart)
        raise InputError(
            f"{places} are one tied parameter but need different gains: merge with untie=True"
        )
    for name, layer in layers.items():
        check_layer(name, layer)
    check_model(model, batch)
    write(groups)
    return unwrap(model)


def _require_foldable(name: str, base: nn.Module) -> None:
    weight = base._parameters.get("weight")
    plain = type(weight) is nn.Parameter and type(weight.data) is torch.Tensor
    if weight is None or not plain or not weight.is_floating_point() or weight.itemsize < 2:
        raise InputError(f"{name} has no plain floating-point weight to merge its gain into")
    if weight.is_meta:
        raise InputError(f"{name} lies on the meta device: load its weights before merging")
    if any(parameter.is_inference() for parameter in base.parameters()):
        raise InputError(f"{name} was made in inference mode and cannot change: load it outside")
    if isinstance(base, nn.Embedding) and base.max_norm is not None:
        raise InputError(f"{name} renormalises its rows (max_norm): its gain cannot be merged")
