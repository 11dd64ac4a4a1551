"""Products of Jacobian blocks: K += J J', without ever holding J.

Three ways to the same number; :func:`add_gram` takes the cheapest for the blocks at hand:

* *neurons*: materialise the block of a few output neurons into one reused buffer that stays in the
  processor's cache, multiply, go on. 2 R**2 d_in d_out operations for R = N*O rows.
* *tokens*: sum over token pairs of (X X') * (D D'), no block at all. Cheaper where
  T**2 (d_in + O**2 d_out) < O**2 d_in d_out.
* *vocabulary*: an embedding's block has rows for the tokens that occur, no others.

Symmetric kernels fill the upper triangle in blocks of rows; :func:`mirror` completes them. Kernels
of signs (SignGD) need each entry of the Jacobian and so never go by tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ntk_propulsion.kernels.engine.jacobian import (
    Block,
    EmbeddingBlock,
    LinearBlock,
    linear_factors,
)
from ntk_propulsion.kernels.engine.product import Product, row_blocks, triangle

ELEMENTWISE = 24  # operations of a matrix product that take as long as one elementwise multiply-add
TOKEN_BLOCKS = 6  # of examples, for the upper triangle by token pairs


class Workspace:
    """One buffer, reused: fresh allocations cost as much as the arithmetic on a CPU."""

    def __init__(self, size: int = 1 << 22) -> None:
        self.size = size  # entries of one side's chunk
        self.buffers: dict[tuple[Any, ...], Tensor] = {}

    def take(self, side: int, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Return a contiguous uninitialised tensor that is valid until the next call."""
        entries = torch.Size(shape).numel()
        key = (side, like.dtype, like.device)
        buffer = self.buffers.get(key)
        if buffer is None or buffer.numel() < entries:
            buffer = self.buffers[key] = like.new_empty(max(entries, self.size))
        return buffer[:entries].view(shape)


def mirror(total: Tensor) -> Tensor:
    """Complete a symmetric kernel from its upper triangle."""
    upper = total.triu()
    return upper + upper.triu(1).T


def add_gram(
    total: Tensor,
    left: Sequence[Block],
    right: Sequence[Block] | None,
    workspace: Workspace,
    product: Product,
) -> None:
    """Add one parameter's kernel to ``total``, (N*O, M*O) in float64.

    Args:
        total: The accumulator; for a symmetric kernel only its upper triangle is filled.
        left: The parameter's blocks on the rows' examples; their sum is the Jacobian.
        right: On the columns' examples; ``None`` for the same.
        workspace: Scratch memory.
        product: What is multiplied, and how.
    """
    if all(isinstance(b, EmbeddingBlock) for b in left):
        _add_vocabulary(total, left, right, product)
        return
    a = linear_factors(left)
    b = a if right is None else linear_factors(right)
    apart = None if right is None else b
    if product.by_tokens and a is not None and b is not None and _tokens_cheaper(a, apart):
        _add_tokens(total, a, apart, workspace)
    elif _has_neurons(left) and (right is None or _has_neurons(right)):
        _add_neurons(total, left, right, workspace, product)
    else:
        product.add(total, _dense(left), None if right is None else _dense(right))


def add_entries(
    total: Tensor,
    left: Sequence[Block],
    right: Sequence[Block] | None,
    index: Tensor,
    workspace: Workspace,
    product: Product,
) -> None:
    """Add the kernel of some entries of a parameter, by their flat positions; else as add_gram."""
    tokens = max(block.tokens for blocks in (left, right) for block in blocks or ())
    for part in index.split(max(64, workspace.size // tokens)):
        rows = [
            sum_of([block.entries(part) for block in blocks])
            for blocks in (left, right)
            if blocks is not None
        ]
        product.add(total, rows[0], rows[1] if len(rows) > 1 else None)


def sum_of(tensors: Sequence[Tensor]) -> Tensor:
    """Return the sum of one tensor or more."""
    total = tensors[0]
    for t in tensors[1:]:
        total = total + t
    return total


def _dense(blocks: Sequence[Block]) -> Tensor:
    return sum_of([block.dense() for block in blocks])


def _has_neurons(blocks: Sequence[Block]) -> bool:
    return all(
        isinstance(b, EmbeddingBlock) or (isinstance(b, LinearBlock) and not b.transposed)
        for b in blocks
    ) or all(isinstance(b, LinearBlock) and b.transposed for b in blocks)


def _tokens_cheaper(a: LinearBlock, b: LinearBlock | None) -> bool:
    """Whether token pairs cost fewer operations than rows, per pair of examples."""
    n, t, d_out, d_in = a.shape
    s, outputs = (a if b is None else b).shape[1], len(a.d)
    by_tokens: float = t * s * (d_in + outputs**2 * (d_out + ELEMENTWISE))
    by_rows: float = outputs**2 * d_in * d_out
    forming = (t + s) * outputs * d_in * d_out / n
    if b is None:
        by_tokens *= triangle(min(n, TOKEN_BLOCKS))
        by_rows *= triangle(row_blocks(n * outputs))
    return by_tokens < by_rows + forming


def _neuron_shape(blocks: Sequence[Block]) -> tuple[int, int, int, int]:
    """N, O, d_out, d_in of a parameter's blocks."""
    for block in blocks:
        if isinstance(block, LinearBlock):
            n, _, d_out, d_in = block.shape
            return n, len(block.d), d_out, d_in
    block = blocks[0]
    assert isinstance(block, EmbeddingBlock)
    return len(block.ids), len(block.d), *block.shape


def _fill(
    blocks: Sequence[Block], start: int, stop: int, side: int, workspace: Workspace
) -> Tensor:
    n, outputs, _, d_in = _neuron_shape(blocks)
    like = next(b.d[0] for b in blocks if isinstance(b, LinearBlock | EmbeddingBlock))
    chunk = workspace.take(side, (n, outputs * (stop - start), d_in), like)
    for i, block in enumerate(blocks):
        assert isinstance(block, LinearBlock | EmbeddingBlock)
        block.neurons(start, stop, chunk, add=i > 0)
    return chunk.view(n * outputs, -1)


def _add_neurons(
    total: Tensor,
    left: Sequence[Block],
    right: Sequence[Block] | None,
    workspace: Workspace,
    product: Product,
) -> None:
    n, outputs, d_out, d_in = _neuron_shape(left)
    rows = max(n, 0 if right is None else _neuron_shape(right)[0]) * outputs
    step = max(1, min(d_out, workspace.size // max(1, rows * d_in)))
    for start in range(0, d_out, step):
        stop = min(start + step, d_out)
        a = _fill(left, start, stop, 0, workspace)
        b = None if right is None else _fill(right, start, stop, 1, workspace)
        product.add(total, a, b)


def _add_tokens(total: Tensor, a: LinearBlock, b: LinearBlock | None, workspace: Workspace) -> None:
    other = a if b is None else b
    n, t, *_ = a.shape
    m, s, *_ = other.shape
    outputs = len(a.d)
    block = total.view(n, outputs, m, outputs)
    step = max(1, workspace.size // max(1, t * m * s))
    if b is None:
        step = max(1, min(step, -(-n // TOKEN_BLOCKS)))
    for start in range(0, n, step):
        stop = min(start + step, n)
        first = start if b is None else 0
        x = a.x[start:stop].flatten(0, 1) @ other.x[first:].flatten(0, 1).T
        shape = (stop - start, t, m - first, s)
        for o in range(outputs):
            left = a.d[o][start:stop].flatten(0, 1)
            for p in range(outputs):
                pairs = left @ other.d[p][first:].flatten(0, 1).T
                block[start:stop, o, first:, p] += pairs.mul_(x).view(shape).sum((1, 3))


@dataclass
class _Vocabulary:
    """An embedding's Jacobian by token: rows of (example, token) pairs, grouped by token.

    Attributes:
        sums: For each pair, its summed cotangents, (pairs, O, d).
        examples: The example of each pair, ascending within a token.
        spans: For each token that occurs, its pairs' start and stop.
    """

    sums: Tensor
    examples: Tensor
    spans: dict[int, tuple[int, int]]

    @classmethod
    def of(cls, blocks: Sequence[Block]) -> _Vocabulary:
        embeddings = [b for b in blocks if isinstance(b, EmbeddingBlock)]
        outputs = range(len(embeddings[0].d))
        ids = torch.cat([b.ids for b in embeddings], 1)
        n = len(ids)
        pair = ids * n + torch.arange(n, device=ids.device)[:, None]
        pairs, inverse = pair.flatten().unique(return_inverse=True)
        sums = embeddings[0].d[0].new_zeros(len(pairs), len(outputs), embeddings[0].shape[1])
        for o in outputs:
            d = torch.cat([b.cotangents(o) for b in embeddings], 1)
            sums[:, o].index_add_(0, inverse, d.flatten(0, 1))
        tokens, counts = torch.unique_consecutive(pairs // n, return_counts=True)
        stops = counts.cumsum(0).tolist()
        spans = {
            token: (stop - count, stop)
            for token, count, stop in zip(tokens.tolist(), counts.tolist(), stops, strict=True)
        }
        return cls(sums, pairs % n, spans)

    def everywhere(self, n: int) -> set[int]:
        """The tokens that all examples hold (positions, class tokens)."""
        return {token for token, (start, stop) in self.spans.items() if stop - start == n}

    def dense(self, tokens: Sequence[int], n: int) -> Tensor:
        """The columns of tokens that all examples hold, (N*O, tokens*d)."""
        parts = [self.sums[slice(*self.spans[token])] for token in tokens]
        return torch.cat(parts, -1).reshape(n * self.sums.shape[1], -1)


def _add_vocabulary(
    total: Tensor, left: Sequence[Block], right: Sequence[Block] | None, product: Product
) -> None:
    a = _Vocabulary.of(left)
    b = a if right is None else _Vocabulary.of(right)
    outputs = a.sums.shape[1]
    n, m = total.shape[0] // outputs, total.shape[1] // outputs
    block = total.view(n, outputs, m, outputs)
    common = sorted(a.everywhere(n) & b.everywhere(m))
    if common:
        product.add(total, a.dense(common, n), None if right is None else b.dense(common, m))
    rest = (a.spans.keys() & b.spans.keys()) - set(common)
    if right is None and product.symmetric:
        rest -= _add_single(block, a, rest, product)
    for token in sorted(rest):
        rows, columns = slice(*a.spans[token]), slice(*b.spans[token])
        g, h = product.signed(a.sums[rows], None if right is None else b.sums[columns])
        part = torch.einsum("ioe,jpe->iojp", g, g if h is None else h)
        place = (a.examples[rows][:, None], slice(None), b.examples[columns][None, :])
        block[place] += part.transpose(1, 2).to(total.dtype)


def _add_single(block: Tensor, a: _Vocabulary, tokens: set[int], product: Product) -> set[int]:
    """Add all tokens that only one example holds: they reach no other pair. Returns them."""
    single = {token for token in tokens if a.spans[token][1] - a.spans[token][0] == 1}
    pairs = torch.tensor([a.spans[token][0] for token in sorted(single)], device=a.sums.device)
    if single:
        g, _ = product.signed(a.sums[pairs], None)
        own = block.new_zeros(block.shape[0], block.shape[1], block.shape[1])
        own.index_add_(0, a.examples[pairs], (g @ g.transpose(1, 2)).to(block.dtype))
        block.diagonal(dim1=0, dim2=2).add_(own.permute(1, 2, 0))
    return single
