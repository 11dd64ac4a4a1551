"""What tunings of features share: the layers, their sizes, and contractions of X, Y and D."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.engine.binding import LayerUse
from ntk_propulsion.kernels.engine.jacobian import LinearBlock, example_major
from ntk_propulsion.models.roles import module_roles, select
from ntk_propulsion.models.wrappers import plain_name, plain_names
from ntk_propulsion.propulsion.layers import output_size


@dataclass(frozen=True)
class PeftTargets:
    """Layers as ``peft`` names them.

    Attributes:
        modules: A regular expression of whole names; or names, each of which is a layer's or ends
            it after a dot.
    """

    modules: str | tuple[str, ...]

    def include(self, name: str) -> bool:
        """Return whether a layer's name is one of them."""
        if isinstance(self.modules, str):
            return re.fullmatch(self.modules, name) is not None
        return any(name == end or name.endswith(f".{end}") for end in self.modules)


Positions = str | tuple[str, ...] | PeftTargets


def linear_layers(model: nn.Module, positions: Positions) -> list[tuple[str, nn.Module]]:
    """Return the Linear and Conv1D layers at the positions, with their names.

    Raises:
        InputError: There is none, a position is unknown, or a layer is lazy.
    """
    modules = dict(model.named_modules())
    if isinstance(positions, PeftTargets):
        plain = plain_names(model)
        names: Iterable[str] = [
            name
            for name in select(model)
            if positions.include(name) or positions.include(plain_name(plain[name]))
        ]
    else:
        names = select(model, positions)
    layers = [(name, modules[name]) for name in names]
    chosen = [(name, layer) for name, layer in layers if not isinstance(layer, nn.Embedding)]
    if isinstance(positions, PeftTargets) and len(chosen) < len(layers):
        embedding = next(name for name, layer in layers if isinstance(layer, nn.Embedding))
        raise InputError(f"{embedding} is an embedding: this tuning is of linear layers only")
    if not chosen:
        raise InputError(f"positions {positions!r} select no linear layer")
    for name, layer in chosen:
        check_initialised(name, layer)
    return chosen


def attention_projections(model: nn.Module, *wanted: str) -> tuple[str, ...]:
    """Return the wanted projections; a fused one is taken for what it holds."""
    fused = "qkv" in module_roles(model).values()
    return ("query", "key", "value") if fused else wanted


def layer_sizes(layer: nn.Module) -> tuple[int, int]:
    """Return d_in and d_out of a Linear or Conv1D; its weight may be computed, or packed."""
    d_in = layer.in_features if isinstance(layer, nn.Linear) else layer.nx
    assert isinstance(d_in, int)
    return d_in, output_size(layer)


def check_initialised(name: str, layer: nn.Module) -> None:
    """Refuse a lazy layer, whose sizes its first call decides.

    Raises:
        InputError: It has not been called.
    """
    if any(is_lazy(p) for p in layer.parameters()):
        raise InputError(f"module {name!r} is lazy and has no weights yet: call the model once")


def given_factor(
    factors: dict[str, Tensor], module: str, what: str, shape: tuple[int, int]
) -> Tensor:
    """Return the factor that was given for a module.

    Raises:
        InputError: There is none, or of another shape.
    """
    if module not in factors:
        raise InputError(f"{what} is given for {', '.join(factors)} but not for {module!r}")
    if factors[module].shape != shape:
        actual = tuple(factors[module].shape)
        raise InputError(f"{what} of module {module!r} must be {shape} and is {actual}")
    return factors[module].detach()


def linear_block(use: LayerUse) -> LinearBlock:
    """Return X and D of a Linear's or Conv1D's use."""
    assert isinstance(use.block, LinearBlock)
    return use.block


def output_scaling(use: LayerUse, degree: int) -> Tensor:
    """Return k * sum_t D_no[t] * Y_n[t], (N*O, d_out): the Jacobian of gains z**k at z = 1."""
    y = use.y
    assert y is not None
    return degree * example_major([(d * y).sum(1) for d in use.d])
