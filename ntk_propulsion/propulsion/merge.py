"""Folds the gains of a wrapped model into plain weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.propulsion.layers import PropulsionLayer
from ntk_propulsion.propulsion.wrap import propulsion_layers, unwrap, wrapping


@dataclass(frozen=True, eq=False)
class _Use:
    """One module's use of a parameter, and the gain that has to go into it."""

    name: str
    module: nn.Module
    attribute: str
    gain: Tensor | None

    @property
    def parameter(self) -> nn.Parameter:
        """The parameter itself."""
        parameter = self.module._parameters[self.attribute]
        assert parameter is not None
        return parameter

    def folded(self) -> Tensor:
        """Return the value with the gain in it."""
        if self.gain is None:
            return self.parameter.detach()
        # Only a Linear keeps its output dimension first; Conv1D and Embedding keep it last.
        rows = self.attribute == "weight" and isinstance(self.module, nn.Linear)
        gain = self.gain[:, None] if rows else self.gain
        return (self.parameter.detach() * gain).to(self.parameter.dtype)


@torch.no_grad()
def merge(model: nn.Module, *, untie: bool = False) -> nn.Module:
    """Multiply every gain into its layer's weight and bias and remove the scalings, in place.

    The outputs stay the same up to rounding. Parameters require gradients as before `wrap`.

    Args:
        model: A wrapped model.
        untie: What to do with a weight that several layers share but that needs a different gain
            in each (an embedding and the language-model head tied to it): False refuses, True gives
            each layer its own copy. transformers reloads such copies untied, since it finds them
            different; do not call `tie_weights` on the model afterwards.

    Returns:
        `model`, of plain layers.

    Raises:
        InputError: The model is not wrapped, a tied weight needs different gains, or a layer has
            no plain floating-point weight to fold into. The model is then unchanged.
    """
    wrapping(model)
    for name, layer in propulsion_layers(model).items():
        _require_foldable(name, layer.base)
    uses = _uses(model)
    apart = [group for group in uses if not _agree(group)]
    if apart and not untie:
        names = " and ".join(f"{use.name}.{use.attribute}" for use in apart[0])
        raise InputError(
            f"{names} are one tied parameter but need different gains: merge with untie=True"
        )
    for group in uses:
        if group in apart:
            _separate(group)
        else:
            scaled = next(use for use in group if use.gain is not None)
            scaled.parameter.copy_(scaled.folded())
    return unwrap(model)


def _uses(model: nn.Module) -> list[list[_Use]]:
    """Return the uses of each parameter that is scaled somewhere, grouped by parameter."""
    wrapped = {id(layer.base): (name, layer) for name, layer in propulsion_layers(model).items()}
    groups: dict[int, list[_Use]] = {}
    for name, module in model.named_modules():
        plain, layer = wrapped.get(id(module), (name, None))
        gain = layer.scaling.gain().detach() if layer is not None else None
        for attribute, parameter in module._parameters.items():
            if parameter is not None and not isinstance(module, PropulsionLayer):
                use = _Use(plain, module, attribute, gain)
                groups.setdefault(id(parameter), []).append(use)
    scaled = [group for group in groups.values() if any(use.gain is not None for use in group)]
    return [_readers(group) for group in scaled]


def _readers(group: list[_Use]) -> list[_Use]:
    """Leave out parents that only keep a parameter of one of their layers (BERT's decoder bias)."""
    return [
        use
        for use in group
        if use.gain is not None or not any(other.name.startswith(f"{use.name}.") for other in group)
    ]


def _agree(group: list[_Use]) -> bool:
    if len(group) == 1:
        return True
    first = group[0].folded()
    return all(torch.equal(first, use.folded()) for use in group[1:])


def _separate(group: list[_Use]) -> None:
    values = [use.folded().clone() for use in group]
    for use, value in zip(group, values, strict=True):
        use.module._parameters[use.attribute] = nn.Parameter(value)


def _require_foldable(name: str, base: nn.Module) -> None:
    weight = base._parameters.get("weight")
    if weight is None or not weight.is_floating_point():
        raise InputError(f"{name} has no plain floating-point weight to merge its gain into")
    if isinstance(base, nn.Embedding) and base.max_norm is not None:
        raise InputError(f"{name} renormalises its rows (max_norm): its gain cannot be merged")
