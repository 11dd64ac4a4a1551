"""Full fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ntk_propulsion.kernels.engine.binding import Binding
from ntk_propulsion.kernels.tunings._tuning import Tuning, named_parameters, register


@register
@dataclass(frozen=True)
class Full(Tuning):
    """Full fine-tuning: every parameter, whatever its requires_grad says.

    Of a complex parameter the real and the imaginary parts train, two numbers an entry.
    """

    label = "full fine-tuning"
    learning_rate = 5e-5
    recorded = True
    order = 0
    name: str = "full"

    def bind(self, model: nn.Module) -> Binding:
        """Bind to all parameters."""
        return named_parameters(model, lambda name, p: True, self.name)
