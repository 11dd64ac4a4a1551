"""Propulsion's kernel with Gaussian weights in place of the trained ones, X and D as they are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.engine.binding import Binding, Feature, LayerUse
from ntk_propulsion.kernels.engine.jacobian import EmbeddingBlock, LinearBlock, example_major
from ntk_propulsion.kernels.tunings import Tuning
from ntk_propulsion.models.roles import select
from ntk_propulsion.propulsion.layers import check_degree, output_size
from ntk_propulsion.propulsion.wrap import scalings


@dataclass(frozen=True)
class RedrawnPropulsion(Tuning):
    """Propulsion at z = 1 with every scaled layer's weight and bias redrawn, at fixed X and D.

    J_z[no] = k sum_t D_no[t] * (X_n W~' + b~)[t], with W~ and b~ i.i.d. normal about 0, of the
    layer's own mean square sigma**2 (the bias has its own); an embedding's W~ is a table, looked up
    at the token ids. X and D are the real model's. Over seeds the kernel's mean is
    k**2 sum_l sigma_l**2 K_l, `theory.error_budget.weighted_kernel`.

    A draw depends on the seed and the layer's name alone, so all calls of a layer, both sides of a
    cross kernel and every dtype and device share it. An embedding's padding row, which no training
    moves, is left out.

    Attributes:
        degree: The power k.
        positions: The scaled layers.
        seed: Of the draws.
        name: Of the tuning.
    """

    degree: int = 15
    positions: str | tuple[str, ...] = "all"
    seed: int = 0
    name: str = "redrawn_propulsion"

    def __post_init__(self) -> None:
        check_degree(self.degree)

    def bind(self, model: nn.Module) -> Binding:
        """Bind to the layers at the positions.

        Raises:
            InputError: The model is wrapped: its layers' outputs are scaled already.
        """
        if scalings(model):
            raise InputError(
                f"{type(model).__name__} is wrapped for Propulsion: redraw the weights of the "
                "plain model, or of the merged one"
            )
        modules = dict(model.named_modules())
        return Binding(
            features=tuple(
                self._feature(name, modules[name]) for name in select(model, self.positions)
            )
        )

    def _feature(self, name: str, layer: nn.Module) -> Feature:
        # no layer computes with these numbers: the weight whose place they take is certified
        return Feature(name, output_size(layer), self._rows(name, layer), None)

    def _rows(self, name: str, layer: nn.Module) -> Callable[[LayerUse], Tensor]:
        def rows(use: LayerUse) -> Tensor:
            if isinstance(use.block, EmbeddingBlock):
                y = self._outputs(name, layer, use.block.ids, use.d[0])
                d = [use.block.cotangents(o) for o in range(len(use.d))]
            else:
                assert isinstance(use.block, LinearBlock)
                y, d = self._outputs(name, layer, use.block.x, use.d[0]), use.d
            return self.degree * example_major([(each * y).sum(1) for each in d])

        return rows

    def _outputs(self, name: str, layer: nn.Module, x: Tensor, like: Tensor) -> Tensor:
        weight, bias = redraw(layer, name, self.seed)
        weight = weight.to(like)
        y = weight[x] if isinstance(layer, nn.Embedding) else x @ weight.T
        return y if bias is None else y + bias.to(y)


def redraw(layer: nn.Module, name: str, seed: int = 0) -> tuple[Tensor, Tensor | None]:
    """Return Gaussian stand-ins for a layer's weight and bias, each of its own mean square.

    Args:
        layer: A Linear, Conv1D or Embedding.
        name: The layer's name in its model: with the seed it decides the draw.
        seed: A whole number.

    Returns:
        W~ (d_out, d_in), of an embedding (vocabulary, d_out), and b~ (d_out) or None; float32, on
        the CPU.
    """
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    weight, bias = layer.get_parameter("weight"), getattr(layer, "bias", None)
    shape = weight.shape[::-1] if isinstance(layer, Conv1D) else weight.shape

    def drawn(parameter: Tensor, shape: torch.Size) -> Tensor:
        return mean_square(parameter) ** 0.5 * torch.randn(shape, generator=generator)

    return drawn(weight, shape), None if bias is None else drawn(bias, bias.shape)


def mean_square(parameter: Tensor) -> float:
    """Return sigma**2 of a parameter: the mean square of its entries, about 0, not their mean."""
    work = torch.float32 if parameter.device.type == "mps" else torch.float64
    norm = torch.linalg.vector_norm(parameter.detach(), dtype=work)
    return float(norm) ** 2 / parameter.numel()
