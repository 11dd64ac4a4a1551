"""Blocks of every kind, drawn, each with the Jacobian that it stands for."""

from __future__ import annotations

import torch
from torch import Tensor

from ntk_propulsion.kernels.engine.jacobian import (
    Block,
    DenseBlock,
    ElementwiseBlock,
    EmbeddingBlock,
    LinearBlock,
)

VOCABULARY = 7


def drawn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def linear(n: int, t: int, o: int, seed: int, transposed: bool = False) -> tuple[Block, Tensor]:
    x, d = drawn(n, t, 4, seed=seed), [drawn(n, t, 3, seed=seed + i + 1) for i in range(o)]
    J = torch.stack([torch.einsum("nti,ntj->nij", each, x) for each in d], 1)
    J = J.transpose(2, 3) if transposed else J
    return LinearBlock(x, d, transposed), J.reshape(n * o, -1)


def conv1d(n: int, t: int, o: int, seed: int) -> tuple[Block, Tensor]:
    return linear(n, t, o, seed, transposed=True)


def embedding(n: int, t: int, o: int, seed: int) -> tuple[Block, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, VOCABULARY, (n, t), generator=generator)
    d, padding = [drawn(n, t, 3, seed=seed + i + 1) for i in range(o)], 2
    J = torch.zeros(n, o, VOCABULARY, 3, dtype=torch.float64)
    for i in range(n):
        for j in range(t):
            for k in range(o):
                if ids[i, j] != padding:
                    J[i, k, ids[i, j]] += d[k][i, j]
    return EmbeddingBlock(ids, d, (VOCABULARY, 3), padding), J.reshape(n * o, -1)


def bias(n: int, t: int, o: int, seed: int) -> tuple[Block, Tensor]:
    d = [drawn(n, t, 3, seed=seed + i) for i in range(o)]
    return ElementwiseBlock(d), torch.stack([each.sum(1) for each in d], 1).flatten(0, 1)


def scale(n: int, t: int, o: int, seed: int) -> tuple[Block, Tensor]:
    d, factor = [drawn(n, t, 3, seed=seed + i + 1) for i in range(o)], drawn(n, t, 3, seed=seed)
    J = torch.stack([(each * factor).sum(1) for each in d], 1)
    return ElementwiseBlock(d, factor), J.flatten(0, 1)


def dense(n: int, t: int, o: int, seed: int) -> tuple[Block, Tensor]:
    J = drawn(n * o, 6, seed=seed)
    return DenseBlock(J, torch.Size((2, 3))), J


KINDS = [linear, conv1d, embedding, bias, scale, dense]
SHAPES = {"linear": (3, 4), "conv1d": (4, 3), "embedding": (VOCABULARY, 3), "dense": (2, 3)}
