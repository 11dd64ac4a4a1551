"""LayerNorm tuning: scales and shifts of the normalisations."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ntk_propulsion.kernels.engine.binding import Binding
from ntk_propulsion.kernels.tunings._tuning import Tuning, named_parameters, place_of, register
from ntk_propulsion.models.roles import is_norm


@register
@dataclass(frozen=True)
class LayerNorm(Tuning):
    """Scales and shifts of the normalisation layers (any module whose class name says Norm)."""

    label = "LayerNorm"
    learning_rate = 1e-3
    control = recorded = True
    order = 6
    name: str = "layernorm"

    def bind(self, model: nn.Module) -> Binding:
        """Bind to the normalisations' own parameters."""
        norms = {n for n, m in model.named_modules() if is_norm(m)}
        return named_parameters(model, lambda name, p: place_of(name)[0] in norms, self.name)
