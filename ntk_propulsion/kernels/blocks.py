"""Blocks of Jacobians by layer, as `visit_layers` shows them, and their kernels: for studies."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ntk_propulsion.kernels.engine.gram import Workspace, add_gram, mirror, sum_of
from ntk_propulsion.kernels.engine.jacobian import (
    Block,
    ElementwiseBlock,
    EmbeddingBlock,
    LinearBlock,
)
from ntk_propulsion.kernels.engine.product import Product
from ntk_propulsion.kernels.tunings import Feature, LayerUse

__all__ = [
    "Block",
    "EmbeddingBlock",
    "LayerUse",
    "LinearBlock",
    "bias_rows",
    "feature_rows",
    "weight_kernel",
]


def weight_kernel(uses: Sequence[LayerUse]) -> Tensor:
    """Return the kernel of a layer's weight over these calls of it alone, (N*O, N*O) in float64.

    Args:
        uses: All calls of one layer; their Jacobians add before the product.
    """
    d = uses[0].d
    size = len(d) * len(d[0])
    dtype = torch.float64 if d[0].device.type != "mps" else torch.float32
    total = torch.zeros(size, size, dtype=dtype, device=d[0].device)
    add_gram(total, [use.block for use in uses], None, Workspace(), Product())
    return mirror(total)


def bias_rows(uses: Sequence[LayerUse]) -> Tensor:
    """Return the Jacobian of a layer's bias over these calls of it, (N*O, d_out)."""
    return sum_of([ElementwiseBlock(use.d).dense() for use in uses])


def feature_rows(feature: Feature, uses: Sequence[LayerUse]) -> Tensor:
    """Return the Jacobian of a feature over these calls of its layer, (N*O, size)."""
    return sum_of([feature.rows(use) for use in uses])
