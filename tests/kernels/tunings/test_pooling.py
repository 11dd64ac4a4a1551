"""Kernels of several scaling vectors per layer, pooled into one: at z = 1 and where they stand."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.engine.binding import count_trained
from ntk_propulsion.kernels.kernel import Kernel
from ntk_propulsion.kernels.ntk import empirical_ntk
from ntk_propulsion.kernels.operator import ntk_operator
from ntk_propulsion.kernels.reference import reference_jacobian, reference_ntk
from ntk_propulsion.kernels.tunings import Propulsion, Trainable, Tuning
from ntk_propulsion.propulsion import Initialisation, PropulsionConfig, scalings, wrap
from ntk_propulsion.propulsion.pooling import POOLINGS, TIES
from tests.architectures import ALL, build
from tests.kernels.oracle import relative, tolerance

WAYS = [("average", "first"), ("l2", "first"), *itertools.product(("max", "min"), TIES)]
NAMES = ["mlp", "module-reuse", "bert", "gpt2"]
N = 3


def compute(name: str, model: nn.Module, tuning: Tuning) -> Kernel:
    found = empirical_ntk(model, ALL[name].batch(N), [tuning], ALL[name].outputs)
    return found[tuning.name]


def vectors(model: nn.Module) -> list[str]:
    return [f"{name}.scaling.z" for name in scalings(model)]


def reference(name: str, model: nn.Module) -> Tensor:
    return reference_ntk(model, ALL[name].batch(N), ALL[name].outputs, vectors(model))


@pytest.mark.parametrize(("pooling", "ties"), WAYS)
@pytest.mark.parametrize("name", NAMES)
def test_pooled_propulsion_is_the_kernel_of_the_wrapped_model_at_one(
    name: str, pooling: str, ties: str
) -> None:
    model, chosen = build(name), {"vectors": 3, "pooling": pooling, "ties": ties}
    found = compute(name, model, Propulsion(4, **chosen))
    wrapped = wrap(model, PropulsionConfig(4, **chosen))
    assert relative(found.matrix, reference(name, wrapped)) < tolerance(name)
    assert found.num_parameters == 3 * sum(s.z.shape[1] for s in scalings(wrapped).values())


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 7), st.integers(1, 20), st.sampled_from(WAYS))
def test_the_kernel_at_one_is_a_pth_or_the_whole_of_one_vectors(
    count: int, degree: int, way: tuple[str, str]
) -> None:
    model, (pooling, ties) = build("mlp"), way
    one = compute("mlp", model, Propulsion(degree))
    tuning = Propulsion(degree, vectors=count, pooling=pooling, ties=ties)
    found = compute("mlp", model, tuning)
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
        found = compute(name, model, tuning)
        assert relative(found.matrix, expected) < tolerance(name)
        assert not found.exact_fallback


def test_a_wrapped_models_own_pooling_counts() -> None:
    config = PropulsionConfig(3, vectors=2, pooling="max", ties="even")
    wrapped = wrap(build("bert"), config)
    found = compute("bert", wrapped, Propulsion(7, vectors=5, pooling="l2"))
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
        torch.cat(list(reference_jacobian(wrapped, b, "logits", vectors(wrapped)).values()), 1)
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
def test_bad_settings_are_named(make, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
