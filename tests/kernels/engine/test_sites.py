"""Which calls have a closed form, and where the examples lie."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ntk_propulsion.kernels.engine.sites import Call, Layout, Watch
from tests.architectures import build, tokens

W = nn.Parameter(torch.randn(3, 3))
B = nn.Parameter(torch.randn(3))
X = torch.randn(2, 4, 3)
IDS = torch.tensor([[0, 2]])


def seen(run: Callable[[], Tensor]) -> list[Call]:
    """The calls that take W or B."""
    calls: list[Call] = []

    def visit(call: Call, result: Tensor, module: str) -> Tensor:
        calls.append(call)
        return result

    with Watch({id(W): "w", id(B): "b"}, [""], visit):
        run()
    return calls


@pytest.mark.parametrize(
    ("run", "kind", "weight", "bias", "transposed"),
    [
        (lambda: F.linear(X, W, B), "linear", "w", "b", False),
        (lambda: F.linear(X, W), "linear", "w", None, False),
        (lambda: F.linear(X, torch.ones(3, 3), B), "linear", None, "b", False),
        (lambda: X @ W, "linear", "w", None, True),
        (lambda: torch.addmm(B, X[0], W), "linear", "w", "b", True),
        (lambda: X @ W.T, "linear", "w", None, False),
        (lambda: torch.matmul(X, W.t()), "linear", "w", None, False),
        (lambda: X @ W.mT, "linear", "w", None, False),
        (lambda: F.embedding(IDS, W), "embedding", "w", None, False),
        (lambda: F.layer_norm(X, (3,), B, B), "norm", "b", "b", False),
        (lambda: X * B, "scale", "b", None, False),
        (lambda: B + X, "shift", "b", None, False),
    ],
)
def test_calls_with_a_closed_form(
    run: Callable[[], Tensor], kind: str, weight: str | None, bias: str | None, transposed: bool
) -> None:
    (call,) = seen(run)
    assert (call.kind, call.weight, call.bias, call.transposed) == (kind, weight, bias, transposed)
    assert call.foreign == ()


@pytest.mark.parametrize(
    "run",
    [
        lambda: F.linear(X, 2 * W),
        lambda: W @ X[0].T,
        lambda: W.T @ X[0].T,
        lambda: W @ W.T,
        lambda: F.linear(W, W),
        lambda: torch.einsum("btc,dc->btd", X, W),
        lambda: F.embedding(IDS, W, scale_grad_by_freq=True),
        lambda: torch.addmm(B, X[0], W, beta=2),
        lambda: torch.add(X, B, alpha=2),
        lambda: X * B.unsqueeze(0),
        lambda: B * B,
        lambda: X[:, :3] * W,
    ],
)
def test_any_other_call_is_left_to_its_module(run: Callable[[], Tensor]) -> None:
    assert seen(run)[0].kind == "foreign"


def test_calls_without_gradient_are_no_uses() -> None:
    assert seen(lambda: W.detach() * W.shape[0]) == []
    with torch.no_grad():
        assert seen(lambda: X @ W) == []


@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    place=st.integers(0, 3),
    n=st.integers(1, 5),
)
def test_examples_are_found_and_split_wherever_they_lie(
    shape: list[int], place: int, n: int
) -> None:
    place %= len(shape)
    example = [torch.randn(shape) for _ in range(n)]
    layout = Layout.infer(example[0].shape, torch.cat([example[0]] * 2, place).shape)
    assert layout == Layout(place, shape[place])
    split = layout.split(torch.cat(example, place), n)
    for found, expected in zip(split, example, strict=True):
        assert torch.equal(found, expected)


def test_layouts_that_are_unclear_or_shared() -> None:
    assert Layout.infer(torch.Size([1, 3]), torch.Size([1, 3])) == Layout(None)
    assert Layout.infer(torch.Size([1, 3]), torch.Size([2, 6])) is None
    assert Layout.infer(torch.Size([1, 3]), torch.Size([3, 3])) is None
    assert Layout.infer(torch.Size([3]), torch.Size([1, 3])) is None


def test_watching_changes_no_result() -> None:
    model, batch = build("falcon"), tokens(2)
    expected = model(**batch).logits
    names = {id(p): name for name, p in model.named_parameters()}
    with Watch(names, [""], lambda call, result, module: result):
        assert torch.equal(model(**batch).logits, expected)
