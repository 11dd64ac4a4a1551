"""Every way to add J J' gives the product of the dense Jacobians."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ntk_propulsion.kernels.engine import gram
from ntk_propulsion.kernels.engine.gram import Workspace, add_entries, add_gram, mirror, sum_of
from ntk_propulsion.kernels.engine.jacobian import Block
from ntk_propulsion.kernels.engine.product import Product
from tests.kernels.engine.blocks import KINDS, bias, conv1d, embedding, linear

OUTPUTS = 2


def uses(kind: Callable, n: int, t: int, seed: int, count: int) -> tuple[list[Block], Tensor]:
    """Several uses of one parameter, and their Jacobian."""
    blocks, jacobians = zip(
        *(kind(n, t + i, OUTPUTS, seed + 20 * i) for i in range(count)), strict=True
    )
    return list(blocks), sum_of(jacobians)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("product", ["gradient", "sign", "asymmetric"])
@given(
    n=st.integers(1, 9),
    m=st.none() | st.integers(1, 4),
    t=st.integers(1, 3),
    seed=st.integers(0, 40),
    count=st.integers(1, 2),
    size=st.sampled_from([1, 40, 1 << 16]),
)
def test_the_sum_is_the_product_of_the_jacobians(
    kind: Callable, product: str, n: int, m: int | None, t: int, seed: int, count: int, size: int
) -> None:
    left, J = uses(kind, n, t, seed, count)
    right, L = (None, J) if m is None else uses(kind, m, t, seed + 100, count)
    total = torch.zeros(len(J), len(L), dtype=torch.float64)
    multiply = Product(product)
    add_gram(total, left, right, Workspace(size), multiply)
    a = J.sign() if product == "sign" else J
    expected = a @ (J if m is None else L).T if product == "gradient" else a @ L.sign().T
    found = mirror(total) if right is None and multiply.symmetric else total
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("cheaper", [True, False])
def test_pairs_of_tokens_and_rows_agree(cheaper: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gram, "_tokens_cheaper", lambda a, b: cheaper)
    for m in (None, 3):
        left, J = uses(linear, 7, 3, 0, 2)
        right, L = (None, J) if m is None else uses(linear, m, 3, 100, 2)
        total = torch.zeros(len(J), len(L), dtype=torch.float64)
        add_gram(total, left, right, Workspace(50), Product())
        torch.testing.assert_close(mirror(total) if m is None else total, J @ L.T)


def test_a_tied_weight_s_uses_in_an_embedding_and_a_layer_add() -> None:
    x, d = (
        torch.randn(3, 2, 3, dtype=torch.float64),
        [torch.randn(3, 2, 7, dtype=torch.float64)] * OUTPUTS,
    )
    head = gram.LinearBlock(x, d)
    table, J = embedding(3, 4, OUTPUTS, 1)
    J = J + head.dense()
    total = torch.zeros(len(J), len(J), dtype=torch.float64)
    add_gram(total, [table, head], None, Workspace(30), Product())
    torch.testing.assert_close(mirror(total), J @ J.T)


def test_uses_that_only_dense_blocks_join_add() -> None:
    (a, J), (b, L) = linear(3, 2, OUTPUTS, 0), conv1d(3, 2, OUTPUTS, 5)
    total = torch.zeros(len(J), len(J), dtype=torch.float64)
    add_gram(total, [a, b], None, Workspace(), Product())
    torch.testing.assert_close(mirror(total), (J + L) @ (J + L).T)


@pytest.mark.parametrize("kind", [linear, conv1d, embedding, bias])
@pytest.mark.parametrize("m", [None, 3])
def test_some_entries_are_some_columns(kind: Callable, m: int | None) -> None:
    left, J = uses(kind, 4, 2, 0, 2)
    right, L = (None, J) if m is None else uses(kind, m, 2, 100, 2)
    index = torch.arange(0, J.shape[1], 2)
    total = torch.zeros(len(J), len(L), dtype=torch.float64)
    add_entries(total, left, right, index, Workspace(1), Product())
    expected = J[:, index] @ L[:, index].T
    torch.testing.assert_close(mirror(total) if m is None else total, expected)


def test_a_workspace_is_one_buffer_that_grows() -> None:
    workspace, like = Workspace(4), torch.zeros(1)
    first = workspace.take(0, (2, 2), like)
    assert workspace.take(0, (4,), like).data_ptr() == first.data_ptr()
    assert workspace.take(1, (4,), like).data_ptr() != first.data_ptr()
    assert workspace.take(0, (5, 2), like).shape == (5, 2)


@given(st.integers(1, 6), st.integers(0, 9))
def test_a_mirrored_triangle_is_the_symmetric_matrix(n: int, seed: int) -> None:
    a = torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    symmetric = a + a.T
    assert torch.equal(mirror(symmetric.triu() + 7 * torch.ones(n, n).tril(-1)), symmetric)
