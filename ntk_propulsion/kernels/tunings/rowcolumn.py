"""RowColumn: a few whole rows or columns of the layers' weights."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from ntk_propulsion.errors import InputError, unknown
from ntk_propulsion.kernels.engine.binding import Binding, Feature, LayerUse
from ntk_propulsion.kernels.engine.jacobian import LinearBlock
from ntk_propulsion.kernels.tunings._features import layer_sizes, linear_block, linear_layers
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
        """Bind to the layers at the positions."""
        features = []
        for name, layer in linear_layers(model, self.positions):
            d_in, d_out = layer_sizes(layer)
            other, size = (d_in, d_out) if self.axis == "rows" else (d_out, d_in)
            features.append(Feature(name, min(self.count, size) * other, self._rows))
        return Binding(features=tuple(features))

    def _rows(self, use: LayerUse) -> Tensor:
        block = linear_block(use)
        if self.axis == "rows":
            d = [d[..., : self.count] for d in use.d]
            return LinearBlock(block.x, d).dense()
        return LinearBlock(block.x[..., : self.count], use.d).dense()
