"""Propulsion's kernel is that of the really wrapped model, at z = 1 and where z stands."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels import Kernel, empirical_ntk, ntk_operator
from ntk_propulsion.kernels.engine.binding import count_trained
from ntk_propulsion.kernels.reference import reference_jacobian, reference_ntk
from ntk_propulsion.kernels.tunings import (
    Propulsion,
    Trainable,
    Tuning,
)
from ntk_propulsion.models.roles import select
from ntk_propulsion.propulsion import Initialisation, PropulsionConfig, scalings, wrap
from ntk_propulsion.propulsion.layers import output_size
from ntk_propulsion.propulsion.pooling import POOLINGS, TIES
from tests.architectures import ALL, build
from tests.kernels.oracle import gradients, relative, tolerance
from tests.kernels.tunings.adapted import trained
from tests.kernels.tunings.zoo import NAMES, N, compute, expected, rows, vectors


@pytest.mark.parametrize("name", sorted(ALL.keys() - {"functional", "own-parameters"}))
def test_propulsion_is_the_kernel_of_the_wrapped_model(name: str) -> None:
    model = build(name)
    found = compute(name, model, Propulsion(1), Propulsion(15, name="fifteen"))
    for degree, kernel in ((1, found["propulsion"]), (15, found["fifteen"])):
        wrapped = wrap(copy.deepcopy(model), PropulsionConfig(degree))
        assert relative(kernel.matrix, expected(name, wrapped, vectors(wrapped))) < tolerance(name)
        assert kernel.num_parameters == sum(z.numel() for z in vectors(wrapped))
    assert relative(found["fifteen"].matrix, 225 * found["propulsion"].matrix) < 1e-14


@pytest.mark.parametrize("name", ["bert", "gpt2", "deberta-v2", "t5"])
@pytest.mark.parametrize("positions", ["embedding", ("mlp", "attention_output"), "encoder"])
def test_propulsion_at_positions_is_the_kernel_of_the_wrapped_model(
    name: str, positions: str | tuple[str, ...]
) -> None:
    model = build(name)
    found = compute(name, model, Propulsion(4, positions))["propulsion"]
    wrapped = wrap(model, PropulsionConfig(4, positions))
    assert relative(found.matrix, expected(name, wrapped, vectors(wrapped))) < tolerance(name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("degree", [1, 2, 5])
def test_propulsion_of_a_wrapped_model_is_at_its_trained_z(name: str, degree: int) -> None:
    start = Initialisation("normal", 1, 0.2, seed=degree)
    model = wrap(build(name), PropulsionConfig(degree, initialisation=start))
    with torch.no_grad():
        for z in vectors(model):
            z[0], z[-1] = 0.0, -0.9
    found = compute(name, model, Propulsion())
    assert relative(found["propulsion"].matrix, expected(name, model, vectors(model))) < tolerance(
        name
    )
    assert not found.exact_fallback


@pytest.mark.parametrize("name", ["mlp", "bert", "gpt2", "llama"])
def test_propulsion_projects_the_full_jacobian_on_the_weights(name: str) -> None:
    """J_P = k J_F P, P block-diagonal with one block (w_j, b_j) for each output neuron j."""
    model, degree = build(name), 7
    parts = compute(name, model, Propulsion(degree), per_module=True)["propulsion"].per_module
    assert parts.keys() == select(model).keys()
    for layer, part in parts.items():
        module = model.get_submodule(layer)
        neurons_last = not isinstance(module, nn.Linear)
        projected = torch.zeros(len(part), output_size(module), dtype=torch.float64)
        for p in module.parameters():
            full = rows(name, model, [p]).view(-1, *p.shape) * p.detach()
            if p.dim() == 2:
                full = full.sum(1 if neurons_last else 2)
            projected += degree * full
        assert relative(part, projected @ projected.T) < tolerance(name)


def test_propulsion_across_batches_is_the_wrapped_models() -> None:
    model, batch, other = build("bert"), ALL["bert"].batch(3), ALL["bert"].batch(4)
    found = empirical_ntk(model, batch, [Propulsion(3)], other=other)["propulsion"].matrix
    wrapped = wrap(model, PropulsionConfig(3))
    left = gradients(wrapped, batch, "logits", vectors(wrapped))
    right = gradients(wrapped, other, "logits", vectors(wrapped))
    assert relative(found, left @ right.T) < 1e-12


@pytest.mark.parametrize("biases", ["none", "scaled", "all"])
@pytest.mark.parametrize("train_head", [False, True])
@pytest.mark.parametrize("name", ["bert", "gpt2", "albert"])
def test_a_configuration_is_the_kernel_of_all_that_it_trains(
    name: str, biases: str, train_head: bool
) -> None:
    model = build(name)
    config = PropulsionConfig(3, "encoder", biases=biases, train_head=train_head)
    found = compute(name, model, config)["propulsion"]
    wrapped = wrap(copy.deepcopy(model), config)
    assert relative(found.matrix, expected(name, wrapped, trained(wrapped))) < tolerance(name)
    assert found.num_parameters == sum(p.numel() for p in trained(wrapped))


def test_a_tuning_is_its_configuration_and_back() -> None:
    config = PropulsionConfig(4, ("query", "mlp"), biases="all", vectors=2, pooling="max")
    tuning = Propulsion.of(config)
    assert tuning.config == config
    assert isinstance(tuning, PropulsionConfig)
    assert tuning.to_dict() == config.to_dict()
    assert Propulsion(degree=4.0, positions="query") == Propulsion(4, ("query",))


def test_adam_moves_gains_the_faster_the_higher_the_degree() -> None:
    assert Propulsion(3).middle_rate() == pytest.approx(5 * Propulsion(15).middle_rate())


def test_in_a_run_it_is_the_runs() -> None:
    assert Propulsion().in_run(Propulsion(3, "mlp"), seed=1) == Propulsion(3, "mlp")


class Shifted(nn.Linear):
    """A linear layer that adds its bias apart: what it scales is not what its product gives."""

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T + self.bias


class Squashed(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.tanh(x))


@pytest.mark.parametrize("kind", [Shifted, Squashed])
def test_layers_that_are_no_plain_layers_are_autograds_and_named(kind: type[nn.Linear]) -> None:
    model = nn.Sequential(nn.Linear(6, 4), kind(4, 2)).double()
    found = compute("mlp", model, Propulsion(2))
    wrapped = wrap(copy.deepcopy(model), PropulsionConfig(2))
    right = expected("mlp", wrapped, vectors(wrapped))
    assert relative(found["propulsion"].matrix, right) < 1e-12
    assert set(found.exact_fallback) == {"1 (propulsion)"}
    assert found["propulsion"].exact_fallback == found.exact_fallback
    within = compute("mlp", wrapped, Propulsion())["propulsion"].matrix
    assert relative(within, right) < 1e-12


def test_a_weight_that_others_use_too_is_no_hindrance_for_features() -> None:
    found = compute("functional", build("functional"), Propulsion(2))
    wrapped = wrap(build("functional"), PropulsionConfig(2))
    right = expected("functional", wrapped, vectors(wrapped))
    assert relative(found["propulsion"].matrix, right) < 1e-12
    assert "owner (propulsion)" in found.exact_fallback


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("bert", lambda: Propulsion(0), "degree 0"),
        ("bert", lambda: Propulsion(positions="querry"), "did you mean query"),
        ("bert", lambda: Propulsion(initialisation=1.1), r"z = 1, not at 1.1: wrap\(model"),
        ("bert", lambda: Propulsion(biases="some"), "unknown choice of biases"),
    ],
)
def test_bad_input_is_named(name: str, make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compute(name, build(name), make())


# -- several vectors a layer, pooled into one


def pooled(name: str, model: nn.Module, tuning: Tuning) -> Kernel:
    return compute(name, model, tuning)[tuning.name]


def vector_names(model: nn.Module) -> list[str]:
    return [f"{name}.scaling.z" for name in scalings(model)]


WAYS = [("average", "first"), ("l2", "first"), *itertools.product(("max", "min"), TIES)]


def reference(name: str, model: nn.Module) -> Tensor:
    return reference_ntk(model, ALL[name].batch(N), ALL[name].outputs, vector_names(model))


@pytest.mark.parametrize(("pooling", "ties"), WAYS)
@pytest.mark.parametrize("name", ["mlp", "module-reuse", "bert", "gpt2"])
def test_pooled_propulsion_is_the_kernel_of_the_wrapped_model_at_one(
    name: str, pooling: str, ties: str
) -> None:
    model, chosen = build(name), {"vectors": 3, "pooling": pooling, "ties": ties}
    found = pooled(name, model, Propulsion(4, **chosen))
    wrapped = wrap(model, PropulsionConfig(4, **chosen))
    assert relative(found.matrix, reference(name, wrapped)) < tolerance(name)
    assert found.num_parameters == 3 * sum(s.z.shape[1] for s in scalings(wrapped).values())


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 7), st.integers(1, 20), st.sampled_from(WAYS))
def test_the_kernel_at_one_is_a_pth_or_the_whole_of_one_vectors(
    count: int, degree: int, way: tuple[str, str]
) -> None:
    model, (pooling, ties) = build("mlp"), way
    one = pooled("mlp", model, Propulsion(degree))
    tuning = Propulsion(degree, vectors=count, pooling=pooling, ties=ties)
    found = pooled("mlp", model, tuning)
    alone = pooling in ("max", "min") and ties == "first"
    assert relative(found.matrix, one.matrix if alone else one.matrix / count) < 1e-14
    assert found.num_parameters == count * one.num_parameters
    assert count_trained(tuning.bind(model), model) == count * one.num_parameters


@pytest.mark.parametrize(("pooling", "ties"), WAYS)
@pytest.mark.parametrize("name", ["mlp", "module-reuse", "bert"])
def test_the_kernel_of_trained_vectors_is_autograds(name: str, pooling: str, ties: str) -> None:
    """The vectors stand apart, but in every second entry the first two tie."""
    start = Initialisation("normal", 1, 0.2)
    config = PropulsionConfig(3, initialisation=start, vectors=3, pooling=pooling, ties=ties)
    model = wrap(build(name), config)
    with torch.no_grad():
        for scaling in scalings(model).values():
            scaling.z[1, ::2] = scaling.z[0, ::2]
    expected = reference(name, model)
    for tuning in (Propulsion(), Trainable()):
        found = pooled(name, model, tuning)
        assert relative(found.matrix, expected) < tolerance(name)
        assert not found.exact_fallback


def test_a_wrapped_models_own_pooling_counts() -> None:
    config = PropulsionConfig(3, vectors=2, pooling="max", ties="even")
    wrapped = wrap(build("bert"), config)
    found = pooled("bert", wrapped, Propulsion(7, vectors=5, pooling="l2"))
    assert relative(found.matrix, reference("bert", wrapped)) < 1e-12
    assert found.num_parameters == sum(s.z.numel() for s in scalings(wrapped).values())


@pytest.mark.parametrize("product", ["gradient", "sign"])
@pytest.mark.parametrize(("pooling", "ties"), [("average", "first"), ("max", "first")])
def test_every_product_of_gradients_sees_all_the_vectors(
    product: str, pooling: str, ties: str
) -> None:
    """The sign kernel of an average is p times that of one vector, not a p-th."""
    model, batch, other = build("bert"), ALL["bert"].batch(3), ALL["bert"].batch(4)
    tuning = Propulsion(2, vectors=3, pooling=pooling, ties=ties)
    found = empirical_ntk(model, batch, [tuning], other=other, product=product)[tuning.name]
    wrapped = wrap(model, PropulsionConfig(2, vectors=3, pooling=pooling, ties=ties))
    left, right = (
        torch.cat(list(reference_jacobian(wrapped, b, "logits", vector_names(wrapped)).values()), 1)
        for b in (batch, other)
    )
    if product == "sign":
        left, right = left.sign(), right.sign()
    assert relative(found.matrix, left @ right.T) < 1e-12


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_operator_of_pooled_vectors_is_the_kernel(pooling: str) -> None:
    config = PropulsionConfig(
        3, ("query", "mlp"), Initialisation("normal", 1, 0.1), vectors=2, pooling=pooling
    )
    model = wrap(build("bert"), config)
    operator = ntk_operator(model, ALL["bert"].batch(N), Propulsion())
    expected = reference("bert", model)
    dense = torch.as_tensor(operator @ torch.eye(len(expected), dtype=torch.float64).numpy())
    assert relative(dense, expected) < 1e-10


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Propulsion(vectors=0), "vectors 0"),
        (lambda: Propulsion(vectors=2, pooling="avrage"), "did you mean average"),
        (lambda: Propulsion(vectors=2, ties="last"), "unknown rule for ties 'last'"),
    ],
)
def test_bad_settings_of_several_vectors_are_named(make, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
