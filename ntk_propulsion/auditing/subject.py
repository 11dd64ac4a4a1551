"""A tuned checkpoint beside its base: which tensor is which, and every layer before and after."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from ntk_propulsion.auditing.adapters import (
    PARAMETERS,
    Route,
    route,
    targeted_parameter,
)
from ntk_propulsion.auditing.factors import updated_layer
from ntk_propulsion.auditing.inapplicable import InapplicableError
from ntk_propulsion.auditing.merging import merged_layers
from ntk_propulsion.auditing.resizing import Rows, resized_rows
from ntk_propulsion.auditing.tied import tied_modules
from ntk_propulsion.checkpoints import Alignment, Checkpoint, Dialect
from ntk_propulsion.models.roles import role_of
from ntk_propulsion.propulsion.pooling import pool
from ntk_propulsion.theory.changes import OUTPUT_AXIS, LayerWeights

CONV1D = ("c_attn", "q_attn", "c_proj", "c_fc")
"""Layers that keep (d_in, d_out) where GPT-2's `c_attn` does."""


@dataclass(frozen=True)
class Subject:
    """What is audited. Names are the base's; what the base lacks keeps its plain name.

    Attributes:
        base: The checkpoint that was tuned.
        tuned: The checkpoint after it.
        dialect: What its keys say.
        alignment: How names were paired.
        keys: The tuned file's key of each tensor that it holds, by name; of a name that it leaves
            out because a tied one is there, that one's.
        modules: The dialect's name of each module with scalings or factors, by name.
        degree: The power k of the gains, None if nobody says it.
        notes: What the user should know, a sentence each.
    """

    base: Checkpoint
    tuned: Checkpoint
    dialect: Dialect
    alignment: Alignment
    keys: dict[str, str]
    modules: dict[str, str]
    degree: int | None
    notes: list[str] = field(default_factory=list)

    @property
    def is_propulsion(self) -> bool:
        """Whether it has scaling vectors of a Propulsion."""
        return self.dialect.propulsion

    @property
    def carries_base(self) -> bool:
        """Whether the file holds weights of the base, not an adapter's numbers alone."""
        return any(role == "base weight" for role in self.dialect.roles.values())

    @cached_property
    def route(self) -> Route:
        """How a PEFT adapter becomes plain layers."""
        return route(str(self.dialect.peft_type), self.tuned.adapter_config)

    @property
    def unmergeable(self) -> str | None:
        """Why the tuning is no change of weights, None if it may be one."""
        return self.route.reason if self.route.how == "none" else None

    @cached_property
    def tied(self) -> dict[str, str]:
        """Why adapted modules that share their weight have no merged layer, by module."""
        return tied_modules(self) if self.dialect.factors else {}

    @cached_property
    def extra(self) -> tuple[str, ...]:
        """Names of tensors that only the tuned file has."""
        return tuple(name for name in self.keys if name not in self.base)

    @cached_property
    def missing(self) -> tuple[str, ...]:
        """Names of tensors that only the base has."""
        return tuple(name for name in self.base if name not in self.keys)

    @cached_property
    def vectors(self) -> dict[str, Tensor]:
        """The scaling vector of each module, several pooled into one: (d_out,) in float64."""
        kind = self.dialect.peft_type
        if kind == "IA3":
            factors = self.dialect.factors
            return {
                name: real(self.tuned.tensor(factors[plain][0])).double().reshape(-1)
                for name, plain in self.modules.items()
            }
        return {
            name: self._pooled(plain)
            for name, plain in self.modules.items()
            if self.vector_keys(plain)
        }

    def layer(self, module: str) -> LayerWeights | None:
        """Return a layer of the base; None if the base has no matrix of that name."""
        weight = self.base.get(f"{module}.weight")
        if weight is None or len(weight.shape) != 2 or not weight.dtype.is_floating_point:
            return None
        if 0 in weight.shape:
            return None
        bias = f"{module}.bias"
        has_bias = bias in self.base and self.base[bias].shape == (self.width(module),)
        return self.in_both(
            module,
            LayerWeights(
                real(self.base.tensor(f"{module}.weight")),
                real(self.base.tensor(bias)) if has_bias else None,
                self.kind(module),
            ),
        )

    def own(self, module: str, before: LayerWeights, frozen: Collection[str] = ()) -> LayerWeights:
        """Return the layer as the tuned file has it; what it lacks is the base's.

        Args:
            module: The layer.
            before: It as the base has it.
            frozen: Names of tensors that are the base's but for the precision of the file.
        """
        names = [f"{module}.weight", f"{module}.bias"]
        held = [name for name in names if name in self.keys and name not in frozen]
        weight = self.tensor(names[0]) if names[0] in held else before.weight
        bias = before.bias
        if bias is not None and names[1] in held:
            bias = self.tensor(names[1])
        return LayerWeights(weight, bias, before.kind)

    def in_both(self, module: str, layer: LayerWeights) -> LayerWeights:
        """Return a layer without the rows that only one of base and checkpoint has."""
        rows = self.resized.get(f"{module}.weight")
        if rows is None:
            return layer
        bias = layer.bias
        if bias is not None and layer.kind == "linear":
            bias = bias[: rows.shared]
        return LayerWeights(layer.weight[: rows.shared], bias, layer.kind)

    @cached_property
    def resized(self) -> dict[str, Rows]:
        """The rows of each tensor that differs from the base's in their number alone."""
        return resized_rows(self.base, self.tuned, self.keys)

    def after(self, module: str, own: LayerWeights) -> LayerWeights:
        """Return the plain layer that computes what the tuned one does.

        Raises:
            InapplicableError: There is none, or not enough is known to find it; says why.
        """
        plain = self.modules.get(module)
        if plain is None:
            if module in self.tied:
                raise InapplicableError(self.tied[module])
            return own
        refusal = self._refusal(module)
        if refusal:
            raise InapplicableError(refusal)
        if self.route.how == "peft":
            return self._merged(module, own)
        if plain in self.dialect.factors:
            keys = self.dialect.factors[plain]
            factors = {key: real(self.tuned.tensor(key)) for key in keys}
            return updated_layer(plain, own, factors, self.dialect, self.tuned.adapter_config)
        gain = self._gain(module)
        weight = own.weight.double()
        weight = weight * (gain if OUTPUT_AXIS[own.kind] else gain[:, None])
        bias = None if own.bias is None else own.bias.double() * gain
        return LayerWeights(weight, bias, own.kind)

    def objection(self, module: str) -> str | None:
        """Return why a scaled or adapted module has no plain layer, if that is known beforehand."""
        if self.modules.get(module) in self.dialect.factors:
            return self._refusal(module)
        if module not in self.modules or self.modules[module] not in self.dialect.scalings:
            return None
        try:
            self._gain(module)
        except InapplicableError as reason:
            return str(reason)
        return None

    def tensor(self, name: str) -> Tensor:
        """Return a tensor of the tuned file by name."""
        return real(self.tuned.tensor(self.keys[name]))

    def kind(self, module: str) -> str:
        """Return what kind of layer stores a module's weight."""
        leaf = module.rpartition(".")[2]
        if role_of(module) == "embedding" or leaf == "relative_attention_bias":
            return "embedding"
        return "conv1d" if leaf in CONV1D and self._transposed else "linear"

    def width(self, module: str) -> int:
        """Return the number of outputs of a layer of the base."""
        return self.base[f"{module}.weight"].shape[OUTPUT_AXIS[self.kind(module)]]

    def modules_in_order(self) -> Iterator[tuple[str, list[str]]]:
        """Yield every module of the base with the names of its own tensors."""
        found: dict[str, list[str]] = {}
        for name in self.base:
            found.setdefault(name.rpartition(".")[0], []).append(name)
        yield from found.items()

    @cached_property
    def _transposed(self) -> bool:
        """Whether the base keeps its `c_attn` as (d, 3 d), as Conv1D does."""
        for name, (shape, _) in self.base.items():
            if name.endswith("c_attn.weight") and len(shape) == 2:
                bias = self.base.get(name.removesuffix("weight") + "bias")
                return bias is not None and bias.shape == shape[1:] and shape[0] != shape[1]
        return False

    def _refusal(self, module: str) -> str | None:
        """Return why an adapted module has no merged layer, None if it may have one."""
        if self.route.reason:
            return self.route.reason
        if targeted_parameter(self.modules[module], self.tuned.adapter_config):
            return f"targets of {module} are {PARAMETERS}"
        return self.tied.get(module)

    @cached_property
    def _by_peft(self) -> dict[str, tuple[Tensor, Tensor | None]] | InapplicableError:
        """The layers that PEFT makes, or why it makes none: a whole model is loaded only once."""
        try:
            return merged_layers(self)
        except InapplicableError as reason:
            return reason

    def _merged(self, module: str, own: LayerWeights) -> LayerWeights:
        found = self._by_peft
        if isinstance(found, InapplicableError):
            raise found
        weight, bias = found[module]
        if bias is not None and own.bias is None:
            raise InapplicableError(f"{module} gets a bias, which the base has not")
        return LayerWeights(weight, bias, own.kind)

    def vector_keys(self, plain: str) -> tuple[str, ...]:
        """Return the keys of a module's scaling vectors, by the dialect's name of the module."""
        scaling = self.dialect.scalings.get(plain)
        return scaling.keys if scaling else ()

    def has_several(self, module: str) -> bool:
        """Tell whether a module has a table of vectors, (p, d_out)."""
        return any(
            len(self.tuned[key].shape) == 2 for key in self.vector_keys(self.modules[module])
        )

    def _pooled(self, plain: str) -> Tensor:
        """Return the one vector that several keys, or several rows of one, make."""
        vectors = [real(self.tuned.tensor(key)).double() for key in self.vector_keys(plain)]
        if self.dialect.pooling == "product":
            return torch.stack(vectors).prod(0)
        z = vectors[0]
        return pool(z, self.dialect.pooling or "average", "first") if z.ndim == 2 else z

    def _gain(self, module: str) -> Tensor:
        placement = self.dialect.scalings[self.modules[module]].placement
        if not placement.exact:
            place = placement.words if placement.exact is False else "at a place keys do not tell"
            raise InapplicableError(
                f"{module} is scaled {place.removeprefix('output of ')}, which no weight of a "
                "layer expresses"
            )
        if self.dialect.pooling is None and self.has_several(module):
            raise InapplicableError(
                f"{module} has several vectors, and the checkpoint does not say how they are pooled"
            )
        if self.degree is None:
            raise InapplicableError("degree unknown: the gains z**k are not known (give --degree)")
        return self.vectors[module] ** self.degree


def real(tensor: Tensor) -> Tensor:
    """Return a tensor in a type that can be compared: complex as pairs, 8 bits as 32."""
    if tensor.is_complex():
        return torch.view_as_real(tensor)
    small = tensor.is_floating_point() and tensor.element_size() == 1
    return tensor.float() if small else tensor
