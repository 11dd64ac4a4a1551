"""Scales of blocks: one number for every block of a tensor, laid out as a grid of fewer of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

USUAL = 128
"""Rows and columns of a block where nothing says them: DeepSeek's, and everybody's since."""


@dataclass(frozen=True)
class Grid:
    """How scales lie over a tensor.

    Attributes:
        shape: Of the tensor.
        blocks: The size of a block in every dimension; the last of a row may be cut off.
    """

    shape: tuple[int, ...]
    blocks: tuple[int, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """The number of blocks in every dimension."""
        return tuple(-(-n // b) for n, b in zip(self.shape, self.blocks, strict=True))

    def spread(self, scales: Tensor) -> Tensor:
        """Return for every element the scale of its block, broadcast where a block is a whole."""
        scales = scales.reshape(self.counts)
        for dim, (size, block) in enumerate(zip(self.shape, self.blocks, strict=True)):
            if 1 < block < size:
                scales = scales.repeat_interleave(block, dim).narrow(dim, 0, size)
        return scales

    def largest(self, values: Tensor) -> Tensor:
        """Return the largest absolute value of every block."""
        pads = [
            count * block - size
            for size, block, count in zip(self.shape, self.blocks, self.counts, strict=True)
        ]
        padded = F.pad(values.abs(), [n for pad in reversed(pads) for n in (0, pad)])
        split = [n for pair in zip(self.counts, self.blocks, strict=True) for n in pair]
        return padded.reshape(split).amax(tuple(range(1, len(split), 2)))


def grid_of(
    shape: tuple[int, ...], scales: tuple[int, ...], block: Sequence[int] | None
) -> Grid | None:
    """Return how scales of one shape lie over a tensor of another.

    One scale is the whole tensor's; a vector is the rows'; otherwise each dimension has a scale for
    every block of it.

    Args:
        shape: Of the tensor.
        scales: Shape of the scales.
        block: Rows and columns of a block, if the configuration says them.

    Returns:
        None if they do not fit.
    """
    if 0 in shape or not shape:
        return None
    if all(n == 1 for n in scales):
        return Grid(shape, shape)
    if len(scales) == 1 and scales[0] == shape[0]:
        return Grid(shape, (1, *shape[1:]))
    if len(scales) != len(shape):
        return None
    sizes = [_block(n, count, None) for n, count in zip(shape[:-2], scales[:-2], strict=True)]
    given = block if block is not None and len(block) == 2 else (None, None)
    last = zip(shape[-2:], scales[-2:], given, strict=False)
    sizes += [_block(n, count, size) for n, count, size in last]
    return None if None in sizes else Grid(shape, tuple(size or 1 for size in sizes))


def _block(size: int, count: int, given: int | None) -> int | None:
    """Return the size of `count` blocks along a dimension, None if there is no such size."""
    if count == size:
        return 1
    if count == 1:
        return size
    for block in (given, USUAL):
        if block and -(-size // block) == count:
            return block
    return size // count if count and size % count == 0 else None


def numbers(scales: Tensor) -> Tensor:
    """Return scales as float32; bytes are the exponents of powers of two, as in MX formats."""
    if scales.dtype == torch.uint8:
        return (scales.float() - 127).exp2()
    return scales.float()
