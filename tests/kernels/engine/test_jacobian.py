"""Blocks of a Jacobian: whole, by entries and contracted, they are one matrix."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ntk_propulsion.kernels.engine.jacobian import (
    Block,
    example_major,
    linear_factors,
    weighted,
)
from tests.kernels.engine.blocks import KINDS, SHAPES, bias, conv1d, drawn, linear


@pytest.mark.parametrize("kind", KINDS)
@given(n=st.integers(1, 3), t=st.integers(1, 4), o=st.integers(1, 3), seed=st.integers(0, 50))
def test_a_block_is_one_matrix_however_it_is_asked(
    kind: Callable[..., tuple[Block, Tensor]], n: int, t: int, o: int, seed: int
) -> None:
    block, J = kind(n, t, o, seed)
    torch.testing.assert_close(block.dense(), J)
    index = torch.randperm(J.shape[1], generator=torch.Generator().manual_seed(seed))[:5]
    torch.testing.assert_close(block.entries(index), J[:, index])
    c = drawn(n, o, seed=seed + 9)
    summed, shape = c.flatten() @ J, SHAPES.get(kind.__name__)
    v = drawn(shape[1] if shape else 0, seed=seed + 10)
    expected = summed.view(shape) @ v if shape else summed
    total, size = block.contract(c, v)
    torch.testing.assert_close(total, expected)
    assert bool((size >= 0).all())
    assert bool((size.square().sum() > 0) == (total != 0).any())


@given(st.integers(1, 3), st.integers(1, 3))
def test_rows_go_example_by_example(n: int, o: int) -> None:
    rows = example_major([drawn(n, 2, seed=i) for i in range(o)])
    for i in range(n):
        for j in range(o):
            assert torch.equal(rows[i * o + j], drawn(n, 2, seed=j)[i])


def test_a_weighted_sum_over_outputs() -> None:
    d, c = [drawn(3, 2, seed=i) for i in range(2)], drawn(3, 2, seed=5)
    torch.testing.assert_close(weighted(d, c), d[0] * c[:, :1] + d[1] * c[:, 1:])


def test_uses_of_one_weight_join_along_the_tokens() -> None:
    (a, J), (b, L) = linear(2, 3, 2, 0), linear(2, 1, 2, 7)
    joined = linear_factors([a, b])
    assert joined is not None
    torch.testing.assert_close(joined.dense(), J + L)
    assert linear_factors([a, conv1d(2, 3, 2, 0)[0]]) is None
    assert linear_factors([a, bias(2, 3, 2, 0)[0]]) is None
