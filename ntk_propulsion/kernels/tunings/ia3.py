"""IA3: rescaled keys, values and feed-forward inputs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.engine.binding import Binding, Feature, LayerUse
from ntk_propulsion.kernels.engine.jacobian import example_major
from ntk_propulsion.kernels.tunings._displacement import scaled_inputs, scaled_outputs
from ntk_propulsion.kernels.tunings._features import (
    PeftTargets,
    Positions,
    attention_projections,
    layer_sizes,
    linear_block,
    linear_layers,
    output_scaling,
)
from ntk_propulsion.kernels.tunings._peft import (
    PeftTuning,
    check_understood,
    exactly,
    target_layers,
    where,
)
from ntk_propulsion.kernels.tunings._tuning import register
from ntk_propulsion.models.adapters import require_peft
from ntk_propulsion.models.roles import is_mlp_output
from ntk_propulsion.models.wrappers import plain_names


@register
@dataclass(frozen=True)
class IA3(PeftTuning):
    """Rescaled keys, values and feed-forward inputs (Liu et al. 2022), at scale 1.

    Outputs of ``outputs`` are scaled (degree 1); *inputs* of ``inputs`` too:
    sum_t (D_no W)[t] * X_n[t].

    Attributes:
        outputs: Keys and values by default, or the projections that hold query, key and value in
            one, as PEFT takes them.
        inputs: The MLPs' last projections by default.
    """

    label = "IA3"
    learning_rate = 5e-3
    control = recorded = True
    order = 4
    peft_type = "IA3"
    outputs: Positions | None = None
    inputs: Positions | None = None
    name: str = "ia3"

    def bind(self, model: nn.Module) -> Binding:
        """Bind to the layers whose outputs and whose inputs are scaled."""
        outputs = self.outputs or attention_projections(model, "key", "value")
        scale = partial(output_scaling, degree=1)
        features = []
        for name, layer in linear_layers(model, outputs):
            size = layer_sizes(layer)[1]
            displaced = scaled_outputs(name, size, lambda delta: 1 + delta)
            features.append(Feature(name, size, scale, displaced, needs_output=True))
        if self.inputs is None:
            plain = plain_names(model)
            inner = [(n, m) for n, m in linear_layers(model, "all") if is_mlp_output(plain[n])]
        else:
            inner = linear_layers(model, self.inputs)
        for name, layer in inner:
            size = layer_sizes(layer)[0]
            features.append(Feature(name, size, _input_scaling, scaled_inputs(name, size)))
        return Binding(features=tuple(features))

    def peft_config(self, model: nn.Module, steps: int) -> Any:
        """Return an IA3Config that scales the same layers."""
        peft = require_peft(self.name)
        features = self.bind(model).features
        layers = [feature.module for feature in features]
        if len(set(layers)) < len(layers):
            raise InputError(f"{self.name} scales a layer's inputs and outputs: peft does only one")
        inputs = [feature.module for feature in features if not feature.needs_output]
        return peft.IA3Config(feedforward_modules=exactly(inputs), **where(model, layers))

    @classmethod
    def from_peft(cls, config: Any) -> Self:
        """Return the tuning of an IA3Config's layers."""
        check_understood(config, ("target_modules", "feedforward_modules"))
        every, inner = map(target_layers, (config.target_modules, config.feedforward_modules))
        if every is None and inner is None:
            return cls()
        if every is None or inner is None:
            raise InputError("IA3Config: give both target_modules and feedforward_modules, or none")
        return cls(_without(every, inner), inner)


def _without(every: PeftTargets, inner: PeftTargets) -> PeftTargets:
    """Return the layers whose outputs are scaled: those that are not scaled at their inputs."""
    if isinstance(every.modules, str) or isinstance(inner.modules, str):
        raise InputError("IA3Config with a pattern: give its modules as lists of names")
    return PeftTargets(tuple(name for name in every.modules if name not in inner.modules))


def _input_scaling(use: LayerUse) -> Tensor:
    x = linear_block(use).x
    return example_major([((d @ use.weight) * x).sum(1) for d in use.d])
