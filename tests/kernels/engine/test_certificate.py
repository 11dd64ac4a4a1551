"""The certificate passes right blocks and names wrong ones, whatever is wrong."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.engine.apart import TOLERANCE
from ntk_propulsion.kernels.engine.certificate import Certificate, regrouped
from ntk_propulsion.kernels.engine.jacobian import (
    Block,
    DenseBlock,
    ElementwiseBlock,
    LinearBlock,
)
from ntk_propulsion.kernels.engine.plain import Plain
from ntk_propulsion.kernels.outputs import resolve_outputs
from tests.architectures import vectors

N, OUTPUTS = 5, 2


def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(6, OUTPUTS).double()


def blocks(x: Tensor) -> dict[str, list[Block]]:
    """The right blocks of a linear layer's parameters."""
    d = [torch.zeros(N, 1, OUTPUTS, dtype=torch.float64) for _ in range(OUTPUTS)]
    for o in range(OUTPUTS):
        d[o][:, :, o] = 1
    return {"weight": [LinearBlock(x[:, None], d)], "bias": [ElementwiseBlock(d)]}


def certified(x: Tensor, chunk: int = N, seed: int = 3, model: nn.Module | None = None):
    model = layer() if model is None else model
    plain = Plain(model, x, N, resolve_outputs("logits"), dict(model.named_parameters()), {})
    return Certificate(plain, OUTPUTS, chunk, seed)


@pytest.mark.parametrize("chunk", [N, 2, 1])
def test_right_blocks_pass_whatever_the_chunks(chunk: int) -> None:
    x = vectors(N)
    certificate = certified(x, chunk)
    assert certificate.judge(blocks(x)) == set()
    assert set(certificate.errors) == {"weight", "bias"}
    assert max(certificate.errors.values()) < 1e-12


def wrong(kind: str, x: Tensor) -> dict[str, list[Block]]:
    found = blocks(x)
    if kind == "a missed use":
        found["weight"] = []
    elif kind == "a use counted twice":
        found["weight"] *= 2
    elif kind == "examples in another order":
        found = {**found, "weight": blocks(x.flip(0))["weight"]}
    elif kind == "an input changed a little":
        found = {**found, "weight": blocks(x + 0.01)["weight"]}
    else:
        (block,) = blocks(x)["weight"]
        assert isinstance(block, LinearBlock)
        found["weight"] = [LinearBlock(block.x, block.d[::-1])]
    return found


@pytest.mark.parametrize(
    "kind",
    [
        "a missed use",
        "a use counted twice",
        "examples in another order",
        "an input changed a little",
        "outputs in another order",
    ],
)
def test_a_wrong_block_is_named_and_no_other(kind: str) -> None:
    x = vectors(N)
    certificate = certified(x)
    assert certificate.judge(wrong(kind, x)) == {"weight"}
    assert certificate.errors["weight"] > 10 * TOLERANCE[torch.float64]
    assert certificate.errors["bias"] < 1e-12


def test_a_block_with_nan_never_passes() -> None:
    x = vectors(N)
    certificate = certified(x)
    x = x.clone()
    x[1, 2] = torch.nan
    assert certificate.judge(blocks(x)) == {"weight"}


def test_a_parameter_without_gradient_and_without_blocks_passes() -> None:
    model = layer()
    model.register_parameter("unused", nn.Parameter(torch.ones(3, dtype=torch.float64)))
    assert certified(vectors(N), model=model).judge({"unused": []}) == set()


def test_the_seed_fixes_the_weights() -> None:
    first, again, other = (certified(vectors(N), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.c, again.c)
    assert not torch.equal(first.c, other.c)


class Scaled(nn.Module):
    """Two layers, the second behind a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(6, OUTPUTS), nn.Linear(6, OUTPUTS)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) + self.factor * self.b(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("factor", [1.0, 1e-4, 1e-6, 1e-8])
def test_a_small_branch_is_judged_on_its_own_scale(factor: float, dtype: torch.dtype) -> None:
    x, model = vectors(N).to(dtype), Scaled(factor).to(dtype)
    certificate = certified(x, model=model)
    d = [torch.zeros(N, 1, OUTPUTS, dtype=dtype) for _ in range(OUTPUTS)]
    for o in range(OUTPUTS):
        d[o][:, :, o] = factor
    right = LinearBlock(x[:, None], d)
    assert certificate.judge({"b.weight": [right]}) == set()
    assert certificate.judge({"b.weight": [right, right]}) == {"b.weight"}
    assert certificate.judge({"b.weight": []}) == {"b.weight"}


class Shifted(nn.Module):
    """A shift of all logits, which their log-softmax takes away: its gradient is rounding."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.map, self.shift = nn.Linear(6, OUTPUTS), nn.Parameter(torch.tensor(3.0))

    def forward(self, x: Tensor) -> Tensor:
        return torch.log_softmax(self.map(x) + self.shift, -1)


def test_rounding_of_a_gradient_that_vanishes_is_no_mistake() -> None:
    certificate = certified(vectors(N).float(), model=Shifted())
    noise = DenseBlock(1e-8 * torch.randn(N * OUTPUTS, 1), torch.Size(()))
    assert certificate.judge({"shift": [noise]}) <= {"shift"}  # or by autograd: never refused
    certificate.confirm("shift", noise)


class Mixing(nn.Module):
    """The mean over the batch is taken away below a head that is zero."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Linear(6, 4).double(), nn.Linear(4, OUTPUTS).double()
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        return self.head(h - h.mean(0))


def test_gradients_that_change_with_the_grouping_are_mixing() -> None:
    model = Mixing()
    certificate = certified(vectors(N), model=model)
    with torch.no_grad():
        h = model.body(vectors(N))
    d = [torch.zeros(N, 1, OUTPUTS, dtype=torch.float64) for _ in range(OUTPUTS)]
    for o in range(OUTPUTS):
        d[o][:, :, o] = 1
    with pytest.raises(InputError, match=r"mixes examples.*'head\.weight'"):
        certificate.judge({"head.weight": [LinearBlock((h - h.mean(0))[:, None], d)]})


def test_outputs_that_change_with_the_grouping_are_mixing() -> None:
    model = Mixing()
    nn.init.ones_(model.head.weight)
    with pytest.raises(InputError, match="mixes examples"):
        certified(vectors(N), model=model)


def test_outputs_of_a_captured_pass_are_those_of_the_batch() -> None:
    model, x = layer(), vectors(N)
    certificate = certified(x, model=model)
    certificate.check_values(model(x), slice(0, N))
    with pytest.raises(InputError, match="mixes examples"):
        certificate.check_values(model(x) + 0.1, slice(0, N))


def test_gradients_that_differ_between_equal_calls_are_chance() -> None:
    model = Mixing()
    model.forward = lambda x: model.head(torch.dropout(model.body(x), 0.5, train=True))
    with pytest.raises(InputError, match="random"):
        certified(vectors(N), model=model).judge({"head.weight": []})


def test_rows_that_do_not_add_up_are_refused() -> None:
    x = vectors(N)
    certificate, rows = certified(x), blocks(x)["weight"][0].dense()
    certificate.confirm("weight", DenseBlock(rows, torch.Size((OUTPUTS, 6))))
    with pytest.raises(InputError, match=r"mixes examples.*'weight'.*alone"):
        certificate.confirm("weight", DenseBlock(1.1 * rows, torch.Size((OUTPUTS, 6))))


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 40), chunk=st.integers(1, 40), seed=st.integers(0, 999))
def test_examples_are_regrouped_each_once_and_never_as_they_came(n: int, chunk: int, seed: int):
    groups = regrouped(n, chunk, torch.Generator().manual_seed(seed))
    assert sorted(i for group in groups for i in group) == list(range(n))
    assert max(map(len, groups)) <= chunk
    if n > 1:
        assert len(groups) > 1
        assert [i for group in groups for i in group] != list(range(n))
    if 1 < n <= 8:
        assert len(groups[0]) == 1
    if n > 2 and chunk > 1:
        assert max(map(len, groups)) > 1
