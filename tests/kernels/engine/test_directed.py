"""Moving a matrix along v gives its gradient times v, in every call that it knows."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ntk_propulsion.kernels.engine.directed import Directed

W = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
V = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
X = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
IDS = torch.tensor([[0, 3], [3, 3], [1, 0]])

USES = {
    "linear": lambda w: F.linear(X, w),
    "linear by name": lambda w: F.linear(input=X, weight=w, bias=torch.ones(4).double()),
    "one row": lambda w: F.linear(X[0, 0], w),
    "matrix product": lambda w: X.transpose(1, 2).tanh()[:, :, :1].expand(5, 3, 4) @ w,
    "addmm": lambda w: torch.addmm(torch.ones(3).double(), X[0].tanh()[:, [0, 1, 2, 0]], w),
    "embedding": lambda w: F.embedding(IDS, w),
    "embedding with padding": lambda w: F.embedding(IDS, w, padding_idx=3),
    "transposed": lambda w: X @ w.T,
    "elementwise": lambda w: X[0, 0] * w,
    "twice": lambda w: F.linear(F.linear(X, w).tanh() @ w, w),
    "two ways": lambda w: F.linear(X, w) + F.linear(X, w * 2),
}


@pytest.mark.parametrize("use", USES)
def test_the_gradient_along_v_is_the_gradient_times_v(use: str) -> None:
    p = nn.Parameter(W.clone())
    (whole,) = torch.autograd.grad(torch.sin(USES[use](p)).sum(), p)
    directed = Directed({"p": p}, lambda t: V)
    with directed:
        values = USES[use](p)
    assert torch.equal(values.detach(), USES[use](p).detach())
    leaves = [p, *directed.steps.values()]
    first, *rest = torch.autograd.grad(torch.sin(values).sum(), leaves, allow_unused=True)
    found = sum((g for g in rest), torch.zeros(4).double())
    found = found if first is None else found + first @ V
    torch.testing.assert_close(found, whole @ V)
    assert bool(rest) == (use not in ("transposed", "elementwise"))


def tripled(p: nn.Parameter) -> nn.Parameter:
    p.register_hook(lambda gradient: 3 * gradient)
    return p


@pytest.mark.parametrize(
    "p",
    [tripled(nn.Parameter(W.clone())), W.clone().requires_grad_(), nn.Parameter(W[0].clone())],
    ids=["hooked", "no parameter", "vector"],
)
def test_what_is_no_plain_matrix_is_left_alone(p: Tensor) -> None:
    directed = Directed({"p": p}, lambda t: V)
    with directed:
        F.linear(X, p)
    assert not directed.steps


def test_nothing_moves_where_nothing_is_differentiated() -> None:
    p = nn.Parameter(W.clone())
    directed = Directed({"p": p}, lambda t: V)
    with directed, torch.no_grad():
        F.linear(X, p)
    assert not directed.steps
