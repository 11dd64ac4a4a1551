"""Propulsion: a configuration of the method, as a tuning."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.engine.binding import Binding, Feature, LayerUse
from ntk_propulsion.kernels.tunings._displacement import scaled_outputs
from ntk_propulsion.kernels.tunings._features import check_initialised, output_scaling
from ntk_propulsion.kernels.tunings._tuning import Adapter, Tuning, named_parameters, register
from ntk_propulsion.models.roles import select
from ntk_propulsion.propulsion.config import PropulsionConfig
from ntk_propulsion.propulsion.layers import output_size
from ntk_propulsion.propulsion.pooling import pool, shares
from ntk_propulsion.propulsion.wrap import scalings, trained_beside, wrap


@register
@dataclass(frozen=True)
class Propulsion(PropulsionConfig, Adapter):
    """Scaling z**degree of the layers' outputs, at z = 1 (arXiv 2409.10927).

    It is a `PropulsionConfig`, with all its settings, that has a kernel.

    J_z[no] = k z**(k-1) sum_t D_no[t] * Y_n[t] with Y the output before the scaling and D its
    cotangent after. With p vectors per layer p * d_out numbers train, and by the chain rule the
    block of vector i is J_z times the derivative of the pool by it: the kernel is K/p for average,
    l2 and ties shared evenly, and K itself where the first of the tied vectors takes the gradient
    of max or min, K the kernel of one vector. Biases and head that train beside z add theirs.

    On a model that is wrapped already the kernel is that of its scaling vectors as they stand, and
    all settings are the model's own.
    """

    label = "Propulsion"
    learning_rate = 1.5e-2
    recorded = True
    order = 1
    name: str = "propulsion"

    @classmethod
    def of(cls, config: PropulsionConfig) -> Propulsion:
        """Return the tuning with a configuration's settings."""
        return cls(**{field.name: getattr(config, field.name) for field in fields(config)})

    @property
    def config(self) -> PropulsionConfig:
        """The settings alone."""
        settings = {f.name: getattr(self, f.name) for f in fields(PropulsionConfig)}
        return PropulsionConfig(**settings)

    def bind(self, model: nn.Module) -> Binding:
        """Bind to the layers at the positions, or to the scaling vectors that exist."""
        wrapped = {id(scaling.z) for scaling in scalings(model).values()}
        if wrapped:
            return named_parameters(model, lambda name, p: id(p) in wrapped, self.name)
        if not self.starts_at_one:
            raise InputError(
                f"a kernel of Propulsion from a plain model is at z = 1, not at "
                f"{self.initialisation}: wrap(model, config), then take 'propulsion'"
            )
        modules = dict(model.named_modules())
        sizes = {name: output_size(modules[name]) for name in select(model, self.positions)}
        for name in sizes:
            check_initialised(name, modules[name])
        beside = {id(p) for p in trained_beside(model, self, sizes).values()}
        return Binding(
            parameters=tuple(name for name, p in model.named_parameters() if id(p) in beside),
            features=tuple(
                Feature(
                    name,
                    self.vectors * size,
                    self._rows,
                    scaled_outputs(name, size, self._gain),
                    needs_output=True,
                )
                for name, size in sizes.items()
            ),
        )

    def _rows(self, use: LayerUse) -> Tensor:
        rows = output_scaling(use, self.degree)
        if self.vectors == 1:
            return rows
        parts = shares(self.vectors, self.pooling, self.ties).to(rows)
        return torch.kron(parts[None], rows)

    def _gain(self, delta: Tensor) -> Tensor:
        z = 1 + (delta.view(self.vectors, -1) if self.vectors > 1 else delta)
        return pool(z, self.pooling, self.ties) ** self.degree

    def prepare(self, model: nn.Module, *, steps: int = 1, seed: int = 0) -> None:
        """Wrap a plain model, in place."""
        wrap(model, self.config)

    def middle_rate(self) -> float:
        """Return the rate over the degree: Adam moves gains z**k by k times the rate a step."""
        return super().middle_rate() / self.degree

    def in_run(self, propulsion: Tuning, seed: int) -> Tuning:
        """Return Propulsion as the run has it."""
        return propulsion
