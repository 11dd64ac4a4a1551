"""LoRA: low-rank updates of the layers' weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.engine.binding import Binding, Feature, LayerUse
from ntk_propulsion.kernels.engine.jacobian import LinearBlock
from ntk_propulsion.kernels.tunings._displacement import added_outputs
from ntk_propulsion.kernels.tunings._features import (
    Positions,
    attention_projections,
    given_factor,
    layer_sizes,
    linear_block,
    linear_layers,
)
from ntk_propulsion.kernels.tunings._peft import PeftTuning, check_understood, target_layers, where
from ntk_propulsion.kernels.tunings._tuning import register
from ntk_propulsion.models.adapters import require_peft


@register
@dataclass(frozen=True)
class LoRA(PeftTuning):
    """Low-rank updates B A at their initialisation, B = 0 (Hu et al. 2022).

    J_B[no] = (alpha/r) D_no' X_n A'; J_A = 0. A is drawn as PEFT draws it (Kaiming uniform,
    a = sqrt 5) unless given.

    Attributes:
        rank: r.
        alpha: The scale is alpha/r.
        positions: The adapted layers; queries and values by convention, or the projections that
            hold query, key and value in one, as PEFT takes them.
        seed: Of A.
        a: Given A by module name, each (r, d_in).
    """

    label = "LoRA"
    learning_rate = 1e-3
    control = recorded = True
    order = 2
    peft_type = "LORA"
    rank: int = 8
    alpha: float = 8.0
    positions: Positions | None = None
    seed: int = 0
    a: dict[str, Tensor] | None = None
    name: str = "lora"

    def bind(self, model: nn.Module) -> Binding:
        """Bind to the layers at the positions."""
        generator = torch.Generator().manual_seed(self.seed)
        positions = self.positions or attention_projections(model, "query", "value")
        features = []
        for name, layer in linear_layers(model, positions):
            d_in, d_out = layer_sizes(layer)
            a = (torch.rand(self.rank, d_in, generator=generator) * 2 - 1) * d_in**-0.5
            if self.a is not None:
                a = given_factor(self.a, name, "A", (self.rank, d_in))
            displaced = added_outputs(name, d_in, self._update(a))
            features.append(Feature(name, d_out * self.rank, self._rows(a), displaced))
        return Binding(features=tuple(features))

    def _rows(self, a: Tensor) -> Callable[[LayerUse], Tensor]:
        def rows(use: LayerUse) -> Tensor:
            block = linear_block(use)
            low = block.x @ a.to(block.x).T
            return self.alpha / self.rank * LinearBlock(low, use.d).dense()

        return rows

    def _update(self, a: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        def update(x: Tensor, delta: Tensor) -> Tensor:
            return self.alpha / self.rank * (x @ a.to(x).T @ delta.view(-1, self.rank).T)

        return update

    def peft_config(self, model: nn.Module, steps: int) -> Any:
        """Return a LoraConfig of the same rank and scale at the same layers."""
        peft = require_peft(self.name)
        if self.a is not None:
            raise InputError(f"{self.name} with given A: peft draws its own, leave them out")
        layers = [feature.module for feature in self.bind(model).features]
        return peft.LoraConfig(r=self.rank, lora_alpha=self.alpha, **where(model, layers))

    @classmethod
    def from_peft(cls, config: Any) -> Self:
        """Return the tuning of a LoraConfig's rank, scale and layers."""
        check_understood(config, ("r", "lora_alpha", "target_modules"))
        return cls(config.r, config.lora_alpha, target_layers(config.target_modules))
