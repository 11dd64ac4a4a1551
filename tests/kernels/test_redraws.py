"""Redrawn Propulsion: the weights' Jacobian contracted with the draws; its mean and variance."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels import empirical_ntk, visit_layers
from ntk_propulsion.kernels.redraws import RedrawnPropulsion, mean_square, redraw
from ntk_propulsion.models.roles import select
from ntk_propulsion.propulsion import PropulsionConfig, wrap
from ntk_propulsion.theory import error_budget
from ntk_propulsion.theory.bounds import projection_moments
from tests.architectures import ALL, build
from tests.kernels.oracle import gradients, relative, tolerance

NAMES = ["mlp", "module-reuse", "shared-tensor", "padded-embedding", "tokens-first", "bert",
         "albert", "gpt2", "gpt2-lm", "llama", "bart"]  # fmt: skip
N = 3


def untied(name: str) -> nn.Module:
    """The same model with a weight of its own for each layer."""
    model = build(name)
    for layer in select(model):
        module = model.get_submodule(layer)
        module.weight = nn.Parameter(module.weight.detach().clone())
    return model


def blocks(name: str, model: nn.Module, layer: str) -> tuple[Tensor, Tensor | None]:
    """Autograd's Jacobian of a layer: weight (N*O, d_out, d_in) or (.., vocabulary, d); bias."""
    architecture, module = ALL[name], model.get_submodule(layer)

    def jacobian(p: Tensor) -> Tensor:
        rows = gradients(model, architecture.batch(N), architecture.outputs, [p])
        return rows.view(-1, *p.shape)

    weight, bias = jacobian(module.weight), getattr(module, "bias", None)
    if isinstance(module, Conv1D):
        weight = weight.transpose(1, 2)
    return weight, None if bias is None else jacobian(bias)


def compute(name: str, model: nn.Module, *tunings: RedrawnPropulsion, **keywords: Any) -> Any:
    architecture = ALL[name]
    return empirical_ntk(model, architecture.batch(N), tunings, architecture.outputs, **keywords)


@pytest.mark.parametrize("name", NAMES)
def test_the_kernel_is_the_weights_jacobian_contracted_with_the_draws(name: str) -> None:
    degree, seed = 3, 5
    found = compute(name, build(name), RedrawnPropulsion(degree, seed=seed), per_module=True)
    parts = found["redrawn_propulsion"].per_module
    assert parts.keys() == select(build(name)).keys()
    model = untied(name)
    for layer, part in parts.items():
        module = model.get_submodule(layer)
        weight, bias = redraw(module, layer, seed)
        jacobian, of_bias = blocks(name, model, layer)
        rows = (jacobian * weight).sum(1 if isinstance(module, nn.Embedding) else 2)
        if bias is not None:
            rows += of_bias * bias
        assert relative(part, degree**2 * rows @ rows.T) < tolerance(name)


def test_the_kernel_is_the_theorys_at_the_captured_inputs_and_cotangents() -> None:
    model, batch, direct = build("bert"), ALL["bert"].batch(N), {}

    def visit(name: str, uses: list) -> None:
        weight, bias = redraw(model.get_submodule(name), name, 2)
        D = torch.stack(uses[0].d, 1)
        direct[name] = error_budget.propulsion_kernel(uses[0].block.x, D, weight, bias, degree=4)

    positions = ("encoder", "head")
    visit_layers(model, batch, visit, positions=positions)
    found = compute("bert", model, RedrawnPropulsion(4, positions, seed=2), per_module=True)
    for layer, part in found["redrawn_propulsion"].per_module.items():
        np.testing.assert_allclose(part, direct[layer], rtol=1e-10, atol=1e-12 * part.abs().max())


@pytest.mark.parametrize("name", ["mlp", "padded-embedding"])
def test_over_seeds_the_kernel_has_the_weighted_kernels_mean_and_the_exact_variance(
    name: str,
) -> None:
    model, degree, draws = build(name), 2, 400
    tunings = [RedrawnPropulsion(degree, seed=s, name=str(s)) for s in range(draws)]
    kernels = torch.stack([k.matrix for k in compute(name, model, *tunings).values()])
    mean, variance = 0, 0
    for layer in select(model):
        module = model.get_submodule(layer)
        jacobian, bias = blocks(name, model, layer)
        columns = mean_square(module.weight) ** 0.5 * jacobian
        if isinstance(module, nn.Embedding):
            columns = columns.transpose(1, 2)  # a neuron's weights are a column of the table
        if bias is not None:
            of_bias = mean_square(module.bias) ** 0.5 * bias[..., None]
            columns = torch.cat([columns, of_bias], 2)
        moments = projection_moments(columns)
        mean, variance = mean + degree**2 * moments[0], variance + degree**4 * moments[1]
    error = np.sqrt(variance / draws)
    assert (np.abs(kernels.mean(0).numpy() - mean) <= 4 * error).all()
    np.testing.assert_allclose(kernels.var(0).numpy().mean(), variance.mean(), rtol=0.3)


def test_a_draw_depends_on_the_seed_and_the_layers_name_alone() -> None:
    model = build("bert")
    names = list(select(model, "query"))
    alone, among, again, other = (
        compute("bert", model, RedrawnPropulsion(1, p, seed), per_module=True)["redrawn_propulsion"]
        for p, seed in ((names[1], 1), ("all", 1), (names[1], 1), (names[1], 2))
    )
    part = alone.per_module[names[1]]
    assert torch.equal(part, again.per_module[names[1]])
    assert torch.equal(part, among.per_module[names[1]])
    assert relative(part, other.matrix) > 0.01
    layer = model.get_submodule(names[0])
    assert not torch.equal(redraw(layer, names[0])[0], redraw(layer, names[1])[0])


def test_both_sides_of_a_cross_kernel_share_the_draw() -> None:
    model, whole = build("bert"), ALL["bert"].batch(5)
    first, last = ({k: v[s] for k, v in whole.items()} for s in (slice(0, 2), slice(2, 5)))
    tuning = RedrawnPropulsion(2)
    matrix = empirical_ntk(model, whole, [tuning])[tuning.name].matrix
    cross = empirical_ntk(model, first, [tuning], other=last)[tuning.name].matrix
    assert relative(cross, matrix[: len(cross), len(cross) :]) < 1e-10


def test_draws_have_the_layers_own_mean_squares() -> None:
    torch.manual_seed(0)
    layer = Conv1D(300, 200)
    with torch.no_grad():
        layer.weight.add_(1)
        layer.bias.add_(torch.linspace(-3, 3, 300))
    weight, bias = redraw(layer, "a")
    assert weight.shape == (300, 200)
    assert mean_square(weight) == pytest.approx(mean_square(layer.weight), rel=0.05)
    assert mean_square(torch.tensor([1.0, 3.0])) == pytest.approx(5)  # about 0, not about 2
    assert bias is not None
    assert mean_square(bias) == pytest.approx(mean_square(layer.bias), rel=0.3)
    assert abs(float(weight.mean())) < 0.02


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="wrapped for Propulsion"):
        compute("mlp", wrap(copy.deepcopy(build("mlp")), PropulsionConfig(2)), RedrawnPropulsion())
    with pytest.raises(InputError, match="degree 0"):
        RedrawnPropulsion(0)
