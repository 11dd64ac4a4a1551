"""The head alone."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ntk_propulsion.kernels.engine.binding import Binding
from ntk_propulsion.kernels.tunings._tuning import Tuning, named_parameters, register
from ntk_propulsion.models.heads import head_parameters


@register
@dataclass(frozen=True)
class Head(Tuning):
    """The head alone: parameters outside the pretrained base model.

    Without a ``base_model_prefix`` (not a transformers model), the last linear layer.
    """

    label = "head only"
    learning_rate = 1e-3
    order = 8
    name: str = "head"

    def bind(self, model: nn.Module) -> Binding:
        """Bind to the head's parameters."""
        head = set(head_parameters(model))
        return named_parameters(model, lambda name, p: name in head, self.name)
