"""What tunings of features share: which layers they take, and the Jacobian of gains."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, weight_norm
from transformers.pytorch_utils import Conv1D

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.engine.binding import LayerUse
from ntk_propulsion.kernels.engine.jacobian import EmbeddingBlock, LinearBlock
from ntk_propulsion.kernels.tunings import Propulsion
from ntk_propulsion.kernels.tunings._features import (
    PeftTargets,
    Positions,
    attention_projections,
    given_factor,
    layer_sizes,
    linear_block,
    linear_layers,
    output_scaling,
)
from tests.architectures import build
from tests.kernels.oracle import relative
from tests.kernels.tunings.odd import Buffered

PARTS = st.lists(st.sampled_from(["q", "query", "0", "output"]), min_size=1, max_size=4)


def named(layers: list[tuple[str, nn.Module]]) -> list[str]:
    return [name for name, _ in layers]


@given(name=PARTS, ends=st.lists(PARTS, min_size=1, max_size=3))
def test_a_layer_is_named_by_its_last_parts_whole(name: list[str], ends: list[list[str]]) -> None:
    targets = PeftTargets(tuple(map(".".join, ends)))
    ending = any(name[-len(end) :] == end for end in ends)
    assert targets.include(".".join(name)) == ending


@given(name=PARTS, other=PARTS)
def test_a_pattern_is_of_the_whole_name(name: list[str], other: list[str]) -> None:
    mine, theirs = ".".join(name), ".".join(other)
    assert PeftTargets(re.escape(mine)).include(theirs) == (mine == theirs)
    assert PeftTargets(r".*").include(theirs)


def test_linear_layers_are_the_linear_ones_of_the_positions_in_the_models_order() -> None:
    model = build("bert")
    linear = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    assert named(linear_layers(model, "all")) == linear
    queries = [name for name in linear if name.endswith(".query")]
    assert named(linear_layers(model, ("query", "embedding"))) == queries
    assert named(linear_layers(model, PeftTargets(("query",)))) == queries
    assert all(model.get_submodule(name) is layer for name, layer in linear_layers(model, "all"))


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ("embedding", "positions 'embedding' select no linear layer"),
        (PeftTargets(("nothing",)), "select no linear layer"),
        (PeftTargets(("word_embeddings", "query")), "word_embeddings is an embedding"),
        ("querry", "unknown position"),
    ],
)
def test_positions_without_a_linear_layer_are_refused(positions: Positions, message: str) -> None:
    with pytest.raises(InputError, match=message):
        linear_layers(build("bert"), positions)


@pytest.mark.parametrize("lazy", [nn.LazyLinear(3), nn.Sequential(nn.Tanh(), nn.LazyLinear(3))])
def test_a_lazy_layer_is_named(lazy: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(3, 3), lazy)
    with pytest.raises(InputError, match=r"module '1(\.1)?' is lazy.*call the model once"):
        linear_layers(model, "all")
    with pytest.raises(InputError, match=r"module '1(\.1)?' is lazy.*call the model once"):
        Propulsion().bind(model)
    model(torch.zeros(2, 3))
    assert len(linear_layers(model, "all")) == len(Propulsion().bind(model).features) == 2


def test_a_fused_projection_is_taken_for_all_that_it_holds() -> None:
    assert attention_projections(build("bert"), "query", "value") == ("query", "value")
    assert attention_projections(build("gpt2"), "query", "value") == ("query", "key", "value")


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(3, 5),
        Conv1D(5, 3),
        parametrizations.weight_norm(nn.Linear(3, 5)),
        weight_norm(nn.Linear(3, 5)),
        Buffered(3, 5),
    ],
    ids=["Linear", "Conv1D", "weight_norm", "old weight_norm", "no weight"],
)
def test_sizes_are_of_what_goes_in_and_comes_out(layer: nn.Module) -> None:
    d_in, d_out = layer_sizes(layer)
    assert layer(torch.zeros(2, d_in)).shape == (2, d_out)


def test_a_given_factor_is_the_modules_own_without_its_gradient() -> None:
    factor = nn.Parameter(torch.ones(2, 3))
    found = given_factor({"query": factor}, "query", "A", (2, 3))
    assert torch.equal(found, factor)
    assert not found.requires_grad


@pytest.mark.parametrize(
    ("module", "shape", "message"),
    [
        ("key", (2, 3), "A is given for query, value but not for 'key'"),
        ("query", (3, 2), r"A of module 'query' must be \(3, 2\) and is \(2, 3\)"),
    ],
)
def test_a_factor_that_is_missing_or_of_another_shape_is_named(
    module: str, shape: tuple[int, int], message: str
) -> None:
    factors = {"query": torch.ones(2, 3), "value": torch.ones(2, 3)}
    with pytest.raises(InputError, match=message):
        given_factor(factors, module, "A", shape)


@given(
    sizes=st.tuples(*[st.integers(1, 3)] * 4), degree=st.integers(1, 15), seed=st.integers(0, 999)
)
def test_the_jacobian_of_gains_is_that_of_autograd(
    sizes: tuple[int, int, int, int], degree: int, seed: int
) -> None:
    """f_o = sum over tokens and dimensions of D_o z**k Y, of each example: by autograd at z = 1."""
    n, tokens, outputs, width = sizes
    torch.manual_seed(seed)
    y = torch.randn(n, tokens, width, dtype=torch.float64)
    d = [torch.randn_like(y) for _ in range(outputs)]

    def f(z: torch.Tensor) -> torch.Tensor:
        return torch.stack([(each * y * z**degree).sum((1, 2)) for each in d], dim=1).flatten()

    one = torch.ones(width, dtype=torch.float64)
    expected = torch.autograd.functional.jacobian(f, one)
    use = LayerUse(LinearBlock(torch.empty(n, tokens, 2), d), y, torch.empty(width, 2))
    assert relative(output_scaling(use, degree), expected) < 1e-12


def test_only_a_linear_layers_use_has_a_linear_block() -> None:
    x, d, weight = torch.zeros(1, 1, 2), [torch.zeros(1, 1, 3)], torch.zeros(3, 2)
    block = LinearBlock(x, d)
    assert linear_block(LayerUse(block, None, weight)) is block
    looked_up = EmbeddingBlock(torch.zeros(1, 1, dtype=torch.long), d, (4, 3))
    with pytest.raises(AssertionError):
        linear_block(LayerUse(looked_up, None, weight))
