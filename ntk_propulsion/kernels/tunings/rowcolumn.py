"""RowColumn: a few whole rows or columns of the layers' weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ntk_propulsion.errors import InputError, unknown
from ntk_propulsion.kernels.engine.binding import Binding
from ntk_propulsion.kernels.tunings._features import layer_sizes, linear_layers
from ntk_propulsion.kernels.tunings._tuning import Tuning, register


@register
@dataclass(frozen=True)
class RowColumn(Tuning):
    """A few whole rows or columns of the layers' weights (RoCoFT, arXiv 2410.10075).

    Attributes:
        count: How many of each weight, from the first.
        axis: ``"rows"`` (output neurons) or ``"columns"`` (input features).
        positions: The layers; RoCoFT takes all of the encoder's.
    """

    label = "RowColumn"
    control = True
    order = 7
    count: int = 3
    axis: str = "rows"
    positions: str | tuple[str, ...] = "encoder"
    name: str = "rowcolumn"

    def __post_init__(self) -> None:
        if self.axis not in ("rows", "columns"):
            raise unknown("axis", self.axis, ("rows", "columns"))
        if self.count < 1:
            raise InputError(f"RowColumn trains at least one row or column, not {self.count}")

    def bind(self, model: nn.Module) -> Binding:
        """Bind to the entries of the weights at the positions.

        Raises:
            InputError: A layer's weight is computed from others, packed, or no matrix of numbers:
                it has no rows and columns that could train.
        """
        names = {id(p): name for name, p in reversed(list(model.named_parameters()))}
        entries: dict[str, Tensor] = {}
        for layer_name, layer in linear_layers(model, self.positions):
            weight = _trainable_weight(layer_name, layer)
            index = self._positions(weight, isinstance(layer, Conv1D))
            name = names[id(weight)]
            # one weight of two layers, which may be transposed in one of them, trains once
            entries[name] = torch.cat([entries[name], index]).unique() if name in entries else index
        return Binding(entries=entries)

    def _positions(self, weight: Tensor, transposed: bool) -> Tensor:
        """Return the flat positions of the first rows or columns, in order."""
        places = torch.arange(weight.numel(), device=weight.device).view(weight.shape)
        across = (self.axis == "columns") != transposed
        return (places[:, : self.count] if across else places[: self.count]).flatten()


def _trainable_weight(name: str, layer: nn.Module) -> nn.Parameter:
    weight = getattr(layer, "weight", None)
    shape = layer_sizes(layer)[:: 1 if isinstance(layer, Conv1D) else -1]
    if not isinstance(weight, nn.Parameter):
        raise InputError(
            f"module {name!r} has no weight of its own (it is computed from other parameters), "
            "and so no rows and columns to train: leave it out of the positions"
        )
    if weight.shape != shape or not weight.is_floating_point():
        raise InputError(
            f"module {name!r} has a weight of shape {tuple(weight.shape)} in {weight.dtype}, where "
            f"rows and columns of real numbers, {shape}, can train: leave it out of the positions"
        )
    return weight
