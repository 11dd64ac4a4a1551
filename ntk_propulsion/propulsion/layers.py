"""The scaling z**k of a layer's output, and a layer that carries one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ntk_propulsion.errors import InputError
from ntk_propulsion.propulsion.pooling import check_pooling, pool

LARGEST_DEGREE = 10**6


def check_degree(degree: float) -> int:
    """Return the degree as an integer.

    Only whole degrees are allowed: training may carry an entry of z below zero, where a fractional
    power is not a number.

    Raises:
        InputError: The degree is not a whole number of at least 1, or one that no tuning has.
    """
    whole = isinstance(degree, (int, float)) and not isinstance(degree, bool)
    if not whole or degree != degree or degree < 1 or degree % 1:
        raise InputError(f"degree {degree!r}: give a whole number of at least 1")
    if degree > LARGEST_DEGREE:
        raise InputError(f"the degree is above {LARGEST_DEGREE}: no tuning has such a one")
    return int(degree)


def output_size(layer: nn.Module) -> int:
    """Return the size of the last dimension of a Linear's, Conv1D's or Embedding's output."""
    if isinstance(layer, nn.Linear):
        return layer.out_features
    if isinstance(layer, nn.Embedding):
        return layer.embedding_dim
    if isinstance(layer, Conv1D):
        return layer.nf
    raise InputError(f"{type(layer).__name__} is not a Linear, Conv1D or Embedding")


class Scaling(nn.Module):
    """Scales each output dimension by its trained gain, z**degree (the paper's V' = V * z**k).

    Attributes:
        z: The trained vector, shape (d_out,), or p vectors to be pooled, shape (p, d_out).
        degree: The power k, a whole number of at least 1, so that z may have any sign.
        pooling: How several vectors become one, as `ntk_propulsion.propulsion.pooling.pool` says.
        ties: Which of several equal vectors train under ``"max"`` and ``"min"``.
    """

    def __init__(
        self, z: Tensor, degree: float, pooling: str = "average", ties: str = "first"
    ) -> None:
        super().__init__()
        check_pooling(len(z) if z.ndim == 2 else 1, pooling, ties)
        self.degree = check_degree(degree)
        self.pooling = pooling
        self.ties = ties
        self.z = nn.Parameter(z)

    def pooled(self) -> Tensor:
        """Return the one vector that scales, shape (d_out,): z itself, or several z pooled."""
        return pool(self.z, self.pooling, self.ties)

    def gain(self) -> Tensor:
        """Return the gains, shape (d_out,): the pooled z to the power of the degree."""
        return self.pooled() ** self.degree

    def forward(self, output: Tensor) -> Tensor:
        """Return ``output * gain``, shape (..., d_out), in the dtype of `output`."""
        return output * self.gain().to(output.dtype)

    @property
    def is_hooked(self) -> bool:
        """Whether somebody put hooks on the scaling."""
        return _hooked(self)

    def extra_repr(self) -> str:
        """Return size, degree and pooling, for print(model)."""
        described = f"{self.z.shape[-1]}, degree={self.degree}"
        if self.z.ndim == 1:
            return described
        return f"{described}, vectors={len(self.z)}, pooling={self.pooling}"


class PropulsionLayer(nn.Module):
    """An untouched Linear, Conv1D or Embedding whose output goes through a scaling.

    Other attributes (weight, bias, in_features, padding_idx ...) are the base layer's, because
    model code reads them from the module that it finds at this place.

    Attributes:
        base: The layer as it was.
        scaling: The scaling of its output, bias included.
    """

    def __init__(self, base: nn.Module, scaling: Scaling) -> None:
        super().__init__()
        self.base = base
        self.scaling = scaling
        # Not by train(), which would put all that the base holds into one mode.
        self.training = scaling.training = base.training
        self.register_forward_hook(_nothing)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the base layer's output, scaled: shape (..., d_out)."""
        return self.scaling(self.base(*args, **kwargs))

    @property
    def is_hooked(self) -> bool:
        """Whether there are hooks on this layer, and not on its base, beside our own."""
        return _hooked(self)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)

    def __setattr__(self, name: str, value: Any) -> None:
        # Tying assigns `layer.weight = other.weight`; kept here, it would shadow the base's.
        if name in ("weight", "bias"):
            setattr(self.base, name, value)
        else:
            super().__setattr__(name, value)


def _nothing(layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
    """A hook that does nothing.

    torch.nn.TransformerEncoderLayer takes a fused path in evaluation that reads its layers'
    weights without calling them, and so would lose the scaling; any hook below it prevents that.
    """


def _hooked(module: nn.Module) -> bool:
    """Return whether any hook of a forward or backward pass is there, but the one of ours."""
    kinds = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    )
    return any(hook is not _nothing for hooks in kinds for hook in hooks.values())


def initial_z(layer: nn.Module, values: Tensor) -> Tensor:
    """Return `values` where the layer is, in its precision but at least in float32.

    In bfloat16 the neighbours of 1 are 0.004 and 0.008 away, too coarse for a gain near 1.
    """
    weight = layer.weight
    assert isinstance(weight, Tensor)
    # Eight bits have no common type with any other: they are promoted by their size.
    small = weight.dtype.itemsize < 2
    dtype = torch.float32 if small else torch.promote_types(weight.dtype, torch.float32)
    return values.to(device=weight.device, dtype=dtype)
