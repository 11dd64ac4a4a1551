"""BitFit: all biases."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ntk_propulsion.kernels.engine.binding import Binding
from ntk_propulsion.kernels.tunings._tuning import Tuning, named_parameters, place_of, register


@register
@dataclass(frozen=True)
class BitFit(Tuning):
    """All biases (Ben Zaken et al. 2022): parameters whose own name says bias."""

    label = "BitFit"
    learning_rate = 1e-3
    control = recorded = True
    order = 5
    name: str = "bitfit"

    def bind(self, model: nn.Module) -> Binding:
        """Bind to the biases."""
        return named_parameters(model, lambda name, p: "bias" in place_of(name)[1], self.name)
