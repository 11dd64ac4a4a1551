"""What requires a gradient: the kernel of any wrapped or partly frozen model."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ntk_propulsion.kernels.engine.binding import Binding
from ntk_propulsion.kernels.tunings._tuning import Tuning, named_parameters, register


@register
@dataclass(frozen=True)
class Trainable(Tuning):
    """The parameters that require grad: any wrapped or partly frozen model."""

    label = "what requires a gradient"
    name: str = "trainable"

    def bind(self, model: nn.Module) -> Binding:
        """Bind to the parameters that require grad."""
        return named_parameters(model, lambda name, p: p.requires_grad, self.name)
