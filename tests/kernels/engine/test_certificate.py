"""The certificate passes right blocks and names wrong ones, whatever is wrong."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ntk_propulsion.kernels.engine.certificate import TOLERANCE, Certificate
from ntk_propulsion.kernels.engine.jacobian import Block, ElementwiseBlock, LinearBlock
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


def observed(x: Tensor, chunk: int = N) -> Certificate:
    model = layer()
    certificate = Certificate(dict(model.named_parameters()), N, OUTPUTS, seed=3)
    for start in range(0, N, chunk):
        examples = slice(start, min(start + chunk, N))
        certificate.observe(model(x[examples]), examples, ["weight", "bias"])
    return certificate


@pytest.mark.parametrize("chunk", [N, 2, 1])
def test_right_blocks_pass_whatever_the_chunks(chunk: int) -> None:
    x = vectors(N)
    certificate = observed(x, chunk)
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
    certificate = observed(x)
    assert certificate.judge(wrong(kind, x)) == {"weight"}
    assert certificate.errors["weight"] > 10 * TOLERANCE[torch.float64]
    assert certificate.errors["bias"] < 1e-12


def test_a_block_with_nan_never_passes() -> None:
    x = vectors(N)
    certificate = observed(x)
    x = x.clone()
    x[1, 2] = torch.nan
    assert certificate.judge(blocks(x)) == {"weight"}


def test_a_parameter_without_gradient_and_without_blocks_passes() -> None:
    parameters = {"unused": nn.Parameter(torch.ones(3, dtype=torch.float64))}
    assert Certificate(parameters, N, OUTPUTS, seed=0).judge({"unused": []}) == set()


def test_the_seed_fixes_the_weights() -> None:
    parameters = dict(layer().named_parameters())
    first, again, other = (Certificate(parameters, N, OUTPUTS, seed) for seed in (1, 1, 2))
    assert torch.equal(first.c, again.c)
    assert not torch.equal(first.c, other.c)
