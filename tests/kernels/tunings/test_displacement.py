"""Layers that compute with a tuning's numbers moved: plain ones, and any others, as if wrapped."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.tunings import (
    IA3,
    AdaLoRA,
    Feature,
    LoRA,
    Propulsion,
    Tuning,
    added_outputs,
    scaled_inputs,
    scaled_outputs,
)
from ntk_propulsion.propulsion import wrap
from ntk_propulsion.propulsion.pooling import TIES
from tests.architectures import ALL, build, vectors
from tests.kernels.oracle import gradients, relative, tolerance
from tests.kernels.tunings.adapted import adapters
from tests.kernels.tunings.displaced import (
    closed_rows,
    displaced,
    jacobian,
    outputs_of,
    standing,
)
from tests.kernels.tunings.odd import ODD, Buffered, Net, odd
from tests.kernels.tunings.zoo import compute
from tests.kernels.tunings.zoo import vectors as trained_vectors

NAMES = ["mlp", "cnn", "module-reuse", "padded-embedding", "tokens-first", "bert", "albert", "gpt2",
         "llama", "t5"]  # fmt: skip
WAYS = [("average", "first"), ("l2", "first"), *itertools.product(("max", "min"), TIES)]
TUNINGS: dict[str, Tuning] = {
    "propulsion": Propulsion(15),
    "lora": LoRA(3, 5, "all"),
    "adalora": AdaLoRA(4, 6, "all"),
    "ia3": IA3("all", "all"),
    **{f"{p}-{t}": Propulsion(4, vectors=3, pooling=p, ties=t) for p, t in WAYS},
}


# -- plain layers, of which the closed forms hold


@pytest.mark.parametrize("kind", TUNINGS)
@pytest.mark.parametrize("name", NAMES)
def test_of_plain_layers_it_is_the_closed_form_column_by_column(name: str, kind: str) -> None:
    model, batch, wanted = build(name), ALL[name].batch(3), ALL[name].outputs
    features = TUNINGS[kind].bind(model).features
    expected = closed_rows(model, batch, features, wanted)
    assert relative(jacobian(model, batch, features, wanted), expected) < tolerance(name)


@pytest.mark.parametrize("kind", ["propulsion", "lora", "adalora", "ia3", "max-first"])
@pytest.mark.parametrize("name", ["mlp", "bert", "gpt2", "llama", "t5"])
def test_of_plain_layers_it_gives_the_kernel(name: str, kind: str) -> None:
    model, tuning = build(name), TUNINGS[kind]
    J = jacobian(model, ALL[name].batch(3), tuning.bind(model).features, ALL[name].outputs)
    assert relative(compute(name, model, tuning)[tuning.name].matrix, J @ J.T) < tolerance(name)


@pytest.mark.parametrize("kind", TUNINGS)
@pytest.mark.parametrize("name", NAMES)
def test_where_nothing_is_moved_it_is_the_layer_and_then_comes_back(name: str, kind: str) -> None:
    model, batch = build(name), ALL[name].batch(3)
    features, before = TUNINGS[kind].bind(model).features, outputs_of(model, batch)
    state = {n: dict(m.__dict__) for n, m in model.named_modules()}
    with displaced(model, features, standing(features)):
        assert torch.equal(outputs_of(model, batch), before)
    assert torch.equal(outputs_of(model, batch), before)
    assert {n: m.__dict__ for n, m in model.named_modules()} == state


@pytest.mark.parametrize("name", ["mlp", "bert", "gpt2"])
@pytest.mark.parametrize("way", WAYS)
def test_moved_vectors_are_the_wrapped_models(name: str, way: tuple[str, str]) -> None:
    model, batch = build(name), ALL[name].batch(3)
    tuning = Propulsion(3, vectors=2, pooling=way[0], ties=way[1])
    features = tuning.bind(model).features
    deltas = [0.1 * torch.randn(f.size, dtype=torch.float64) for f in features]
    wrapped = wrap(copy.deepcopy(model), tuning.config)
    with torch.no_grad():
        for z, delta in zip(trained_vectors(wrapped), deltas, strict=True):
            z.add_(delta.view_as(z))
    with displaced(model, features, deltas):
        assert relative(outputs_of(model, batch), outputs_of(wrapped, batch)) < 1e-12


# -- layers that are not plain: what wrapping gives


def measured(kind: str, tuning: Tuning) -> tuple[nn.Module, tuple[Feature, ...], Tensor]:
    """The model, the features, and their Jacobian; the model is then free to be wrapped."""
    model = odd(kind)
    features, before = tuning.bind(model).features, model(vectors(3))
    found = jacobian(model, vectors(3), features)
    assert torch.equal(model(vectors(3)), before)
    assert float(found.abs().max()) > 1e-3
    return model, features, found


@pytest.mark.parametrize("kind", sorted(ODD))
@pytest.mark.parametrize("count", [1, 2])
def test_of_any_layer_it_is_the_wrapped_models(kind: str, count: int) -> None:
    tuning = Propulsion(5, vectors=count, pooling="max", ties="even")
    model, _, found = measured(kind, tuning)
    wrapped = wrap(model, tuning.config)
    expected = gradients(wrapped, vectors(3), "logits", trained_vectors(wrapped))
    assert relative(found, expected) < 1e-12


def adapted(model: nn.Module, kind: str, **settings: Any) -> nn.Module:
    peft = pytest.importorskip("peft", reason="PEFT is not installed: pip install peft")
    config = getattr(peft, kind)(target_modules=["first", "middle", "last"], **settings)
    return peft.get_peft_model(model, config).double().eval()


@pytest.mark.parametrize("kind", sorted(ODD))
def test_of_any_layer_it_is_pefts_lora(kind: str) -> None:
    sizes = {"first": 2, "middle": 6, "last": 4}
    a = {name: torch.randn(3, size).double() for name, size in sizes.items()}
    model, _, found = measured(kind, LoRA(3, 5, "all", a=a))
    wrapped = adapted(model, "LoraConfig", r=3, lora_alpha=5)
    layers = adapters(wrapped, "lora_A")
    with torch.no_grad():
        for name, layer in layers.items():
            layer.lora_A["default"].weight.copy_(a[name])
    b = [layer.lora_B["default"].weight for layer in layers.values()]
    assert relative(found, gradients(wrapped, vectors(3), "logits", b)) < 1e-12


# PEFT's AdaLoRA takes no computed weight, and adds in place on what it may not
OWN_WEIGHT = sorted(kind for kind in ODD if "norm" not in kind and kind != "orthogonal")


class Decomposed(nn.Module):
    """A layer with an update P Lambda Q."""

    def __init__(self, base: nn.Module, p: Tensor, q: Tensor, scale: float) -> None:
        super().__init__()
        self.base, self.p, self.q, self.scale = base, p, q, scale
        self.diagonal = nn.Parameter(torch.zeros(len(q), dtype=torch.float64))
        self.weight = getattr(base, "weight", None)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.scale * (x @ self.q.T @ self.diagonal.diag() @ self.p.T)


SEEDED = torch.Generator().manual_seed(0)
FACTORS = {
    name: tuple(torch.randn(shape, generator=SEEDED).double() for shape in ((d_out, 4), (4, d_in)))
    for name, (d_out, d_in) in {"first": (6, 2), "middle": (4, 6), "last": (3, 4)}.items()
}


@pytest.mark.parametrize("kind", sorted(ODD))
def test_of_any_layer_it_is_that_of_an_update_in_place(kind: str) -> None:
    model, _, found = measured(kind, AdaLoRA(4, 6, "all", factors=FACTORS))
    for name, (p, q) in FACTORS.items():
        setattr(model, name, Decomposed(getattr(model, name), p, q, 6 / (4 + 1e-5)))
    diagonals = [getattr(model, name).diagonal for name in FACTORS]
    assert relative(found, gradients(model, vectors(3), "logits", diagonals)) < 1e-12


@pytest.mark.parametrize("kind", [kind for kind in OWN_WEIGHT if kind != "other forward"])
def test_of_any_layer_it_is_pefts_adalora(kind: str) -> None:
    model, _, found = measured(kind, AdaLoRA(4, 6, "all", factors=FACTORS))
    wrapped = adapted(model, "AdaLoraConfig", init_r=4, lora_alpha=6, total_step=10)
    layers = adapters(wrapped, "lora_E")
    with torch.no_grad():
        for name, layer in layers.items():
            layer.lora_B["default"].copy_(FACTORS[name][0])
            layer.lora_A["default"].copy_(FACTORS[name][1])
            layer.lora_E["default"].zero_()
    of_lambda = [layer.lora_E["default"] for layer in layers.values()]
    assert relative(found, gradients(wrapped, vectors(3), "logits", of_lambda)) < 1e-12


@pytest.mark.parametrize("kind", sorted(ODD))
@pytest.mark.parametrize("inputs", ["first", "middle"])
def test_of_any_layer_it_is_pefts_ia3(kind: str, inputs: str) -> None:
    outputs = ({"first", "middle", "last"} - {inputs}).pop(), "last"
    model, features, found = measured(kind, IA3(outputs, inputs))
    wrapped = adapted(model, "IA3Config", feedforward_modules=[inputs])
    layers = adapters(wrapped, "ia3_l")
    scales = [layers[feature.module].ia3_l["default"] for feature in features]
    assert relative(found, gradients(wrapped, vectors(3), "logits", scales)) < 1e-12


@pytest.mark.parametrize("tuning", [TUNINGS["propulsion"], TUNINGS["lora"], TUNINGS["ia3"]])
def test_a_layer_without_a_weight_is_as_one_with(tuning: Tuning) -> None:
    torch.manual_seed(0)
    model = Net(Buffered(6, 4)).double()
    plain = copy.deepcopy(model)
    plain.middle = nn.Linear(6, 4).double()
    with torch.no_grad():
        plain.middle.weight.copy_(model.middle.packed.view(4, 6))
        plain.middle.bias.copy_(model.middle.bias)
    found = jacobian(model, vectors(3), tuning.bind(model).features)
    assert relative(found, closed_rows(plain, vectors(3), tuning.bind(plain).features)) < 1e-12


# -- calls, errors


def doubled(layer: nn.Module) -> Any:
    return scaled_outputs("x", 4, lambda delta: 1 + delta)(layer, torch.ones(4))


def test_an_input_may_be_named() -> None:
    layer, x = nn.Linear(6, 4), torch.randn(2, 6)
    once = layer(x)
    with doubled(layer), scaled_inputs("x", 6)(layer, torch.ones(6)):
        y = layer(input=x)
    expected = 2 * (2 * once - layer.bias)
    torch.testing.assert_close(y, expected)
    with added_outputs("x", 6, lambda x, delta: x @ delta.view(6, 4))(layer, torch.ones(24)):
        torch.testing.assert_close(layer(input=x), once + x.sum(1, keepdim=True))
        torch.testing.assert_close(layer.forward(input=x), once + x.sum(1, keepdim=True))


def test_contexts_nest_and_each_is_left_by_itself() -> None:
    layer, x = nn.Linear(6, 4), torch.randn(2, 6)
    once = layer(x)
    with doubled(layer):
        with doubled(layer):
            torch.testing.assert_close(layer(x), 4 * once)
            torch.testing.assert_close(layer.forward(x), 4 * once)
        torch.testing.assert_close(layer(x), 2 * once)
    assert torch.equal(layer(x), once)


def test_a_failing_call_leaves_the_layer_as_it_was() -> None:
    layer, before = nn.Linear(6, 4), None
    before = dict(layer.__dict__)
    with pytest.raises(RuntimeError), doubled(layer):
        layer(torch.randn(2, 5))
    assert layer.__dict__ == before


class Pair(nn.Linear):
    def forward(self, x: Tensor) -> Any:
        y = super().forward(x)
        return y, y


class Summed(nn.Linear):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x).sum(-1, keepdim=True)


class Widened(nn.Linear):
    def forward(self, x: Tensor) -> Any:
        return super().forward(torch.cat([x, x], -1))


class Pooled(nn.Linear):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x).mean(0)


@pytest.mark.parametrize(
    ("layer", "tuning", "message"),
    [
        (Pair(4, 4), Propulsion(), "'0' gives tuple, not one tensor.*leave it out"),
        (Pair(4, 4), LoRA(2, positions="all"), "'0' gives tuple, not one tensor"),
        (Summed(4, 4), Propulsion(), r"'0' gives a tensor of shape \(1, 1\).*dimension of 4"),
        (Widened(8, 4), LoRA(2, positions="all"), r"'0' takes a tensor of shape \(1, 4\).* of 8"),
        (Widened(8, 4), IA3("0", "0"), r"'0' takes a tensor of shape \(1, 4\).*dimension of 8"),
        (Pooled(4, 4), AdaLoRA(2, positions="all"), r"shape \(4,\) where .* needs shape \(1, 4\)"),
    ],
)
def test_what_no_number_can_act_on_is_named(layer: nn.Module, tuning: Tuning, message: str) -> None:
    model = nn.Sequential(layer).double()
    with pytest.raises(InputError, match=message):
        jacobian(model, torch.randn(2, 4).double(), tuning.bind(model).features)
