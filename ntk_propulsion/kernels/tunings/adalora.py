"""AdaLoRA: updates in the form of a singular value decomposition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.engine.binding import Binding, Feature, LayerUse
from ntk_propulsion.kernels.engine.jacobian import example_major
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

# How the rank's budget is taken away in training: at the initialisation nothing is.
_SCHEDULE = ("target_r", "tinit", "tfinal", "deltaT", "beta1", "beta2", "orth_reg_weight")


@register
@dataclass(frozen=True)
class AdaLoRA(PeftTuning):
    """Updates P Lambda Q at their initialisation, Lambda = 0 (Zhang et al. 2023).

    J_Lambda,i = scale * p_i' (D_no' X_n) q_i, scale = alpha / (r + 1e-5) as PEFT has it; the rest
    is zero. Trained, it keeps its initial rank: no budget is taken from it.

    Attributes:
        rank: r, the initial rank.
        alpha: As in LoRA.
        positions: The adapted layers, as in LoRA.
        seed: Of P and Q, normal with standard deviation 0.02 as PEFT draws them.
        factors: Given (P (d_out, r), Q (r, d_in)) by module name.
    """

    label = "AdaLoRA"
    learning_rate = 5e-3
    control = recorded = True
    order = 3
    peft_type = "ADALORA"
    rank: int = 12
    alpha: float = 8.0
    positions: Positions | None = None
    seed: int = 0
    factors: dict[str, tuple[Tensor, Tensor]] | None = None
    name: str = "adalora"

    def bind(self, model: nn.Module) -> Binding:
        """Bind to the layers at the positions."""
        generator = torch.Generator().manual_seed(self.seed)
        positions = self.positions or attention_projections(model, "query", "value")
        features = []
        for name, layer in linear_layers(model, positions):
            d_in, d_out = layer_sizes(layer)
            p = 0.02 * torch.randn(d_out, self.rank, generator=generator)
            q = 0.02 * torch.randn(self.rank, d_in, generator=generator)
            if self.factors is not None:
                left, right = ({n: pair[i] for n, pair in self.factors.items()} for i in (0, 1))
                p = given_factor(left, name, "P", (d_out, self.rank))
                q = given_factor(right, name, "Q", (self.rank, d_in))
            displaced = added_outputs(name, d_in, self._update(p, q))
            features.append(Feature(name, self.rank, self._rows(p, q), displaced))
        return Binding(features=tuple(features))

    def _rows(self, p: Tensor, q: Tensor) -> Callable[[LayerUse], Tensor]:
        def rows(use: LayerUse) -> Tensor:
            x = linear_block(use).x
            right = x @ q.to(x).T
            of_lambda = [((d @ p.to(d)) * right).sum(1) for d in use.d]
            return self._scale * example_major(of_lambda)

        return rows

    def _update(self, p: Tensor, q: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        def update(x: Tensor, delta: Tensor) -> Tensor:
            return self._scale * ((x @ q.to(x).T * delta) @ p.to(x).T)

        return update

    @property
    def _scale(self) -> float:
        return self.alpha / (self.rank + 1e-5)

    def peft_config(self, model: nn.Module, steps: int) -> Any:
        """Return an AdaLoraConfig of the same, kept rank and scale at the same layers."""
        peft = require_peft(self.name)
        if self.factors is not None:
            raise InputError(f"{self.name} with given factors: peft draws its own, leave them out")
        layers = [feature.module for feature in self.bind(model).features]
        return peft.AdaLoraConfig(
            init_r=self.rank,
            target_r=self.rank,
            lora_alpha=self.alpha,
            total_step=steps,
            **where(model, layers),
        )

    @classmethod
    def from_peft(cls, config: Any) -> Self:
        """Return the tuning of an AdaLoraConfig's initial rank, scale and layers."""
        own = ("init_r", "r", "lora_alpha", "target_modules", "total_step")
        check_understood(config, (*own, *_SCHEDULE))
        return cls(config.init_r, config.lora_alpha, target_layers(config.target_modules))
