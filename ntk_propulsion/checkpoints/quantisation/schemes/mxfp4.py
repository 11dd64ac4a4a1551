"""Experts in MXFP4, as gpt-oss stores them; transformers dequantises them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ntk_propulsion.checkpoints.checkpoint import Checkpoint
from ntk_propulsion.checkpoints.quantisation.libraries import with_version
from ntk_propulsion.checkpoints.quantisation.scheme import SCHEMES, Found, Scheme, Sight, Stored
from ntk_propulsion.checkpoints.tensor_file import TensorInfo

_BYTES = 16
"""Bytes of a block: 32 codes of 4 bits, with one power of two."""


@dataclass(frozen=True)
class Experts:
    """The matrices of all experts: codes (experts, d_out, blocks, 16), and a scale for each block.

    Attributes:
        checkpoint: That stores them.
        stem: Of their two keys.
    """

    checkpoint: Checkpoint
    stem: str

    @property
    def info(self) -> TensorInfo:
        """Shape (experts, d_in, d_out) and dtype as the plain model has them."""
        experts, rows, blocks, width = self.checkpoint[f"{self.stem}_blocks"].shape
        return TensorInfo((experts, 2 * width * blocks, rows), torch.bfloat16)

    @property
    def parts(self) -> tuple[str, ...]:
        """The keys."""
        return (f"{self.stem}_blocks", f"{self.stem}_scales")

    def dequantised(self) -> Tensor:
        """Return the numbers; bfloat16 holds each of them."""
        from transformers.integrations.mxfp4 import convert_moe_packed_tensors

        blocks, scales = map(self.checkpoint.tensor, self.parts)
        values: Tensor = convert_moe_packed_tensors(blocks, scales, dtype=torch.bfloat16)
        return values

    def rounded(self, values: Tensor) -> None:
        """Return None: transformers packs them on a GPU alone."""


def find(sight: Sight) -> Found:
    """Find pairs of blocks and scales."""
    stems = [
        stem
        for stem in sight.ending("_blocks")
        if f"{stem}_scales" in sight.names and sight.dtype(f"{stem}_blocks") == torch.uint8
    ]
    matrices: dict[str, Stored] = {}
    for stem in stems:
        blocks = f"{stem}_blocks"
        sight.require(f"{stem}_scales", (torch.uint8,))
        shape = sight.shape(blocks)
        if len(shape) != 4 or shape[-1] != _BYTES or shape[:-1] != sight.shape(f"{stem}_scales"):
            raise sight.damaged(blocks, "does not fit its scales")
        matrices[stem] = Experts(sight.checkpoint, stem)
    return Found(f"MXFP4 by {with_version('transformers')}", matrices)


SCHEMES.append(Scheme("MXFP4", ("mxfp4",), find))
