"""Visited layers: what is shown makes the engine's kernels, whatever the memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels import Options, empirical_ntk, visit_layers
from ntk_propulsion.kernels.engine.gram import sum_of
from ntk_propulsion.kernels.engine.planning import WORKSPACE_BYTES
from ntk_propulsion.kernels.tunings import Propulsion
from ntk_propulsion.models.roles import select
from ntk_propulsion.propulsion import PropulsionConfig, wrap
from tests.architectures import ALL, build, mlp, vectors
from tests.kernels.oracle import gradients, relative, tolerance

N = 3


@pytest.mark.parametrize(
    "name", ["mlp", "module-reuse", "tokens-first", "in-place", "bert", "albert", "gpt2", "t5"]
)
def test_uses_hold_inputs_cotangents_outputs_and_weight(name: str) -> None:
    model, architecture = build(name), ALL[name]
    batch, calls, jacobians = architecture.batch(N), {}, {}

    def visit(layer: str, uses: list) -> None:
        module = model.get_submodule(layer)
        assert layer not in calls
        calls[layer] = len(uses)
        jacobians[layer] = sum_of([use.block.dense() for use in uses])
        for use in uses:
            assert all(d.shape == use.y.shape for d in use.d)
            if isinstance(module, nn.Embedding):
                assert torch.equal(use.y, use.weight[use.block.ids])
            else:
                y = use.block.x @ use.weight.T + (0 if module.bias is None else module.bias)
                assert relative(use.y, y) < 1e-12

    visit_layers(model, batch, visit, outputs=architecture.outputs)
    assert calls.keys() == select(model).keys()
    for layer, found in jacobians.items():
        weight = model.get_submodule(layer).weight
        if sum(weight is p for m in model.modules() for p in m.parameters(recurse=False)) == 1:
            expected = gradients(model, batch, architecture.outputs, [weight])
            assert (found - expected).norm() <= tolerance(name) * expected.norm()
    if name == "module-reuse":
        assert calls == {"first": 1, "again": 2, "last": 1}


@pytest.mark.parametrize("name", ["bert", "albert"])
def test_rounds_under_a_small_memory_show_the_same(name: str) -> None:
    model, batch = build(name), ALL[name].batch(6)

    def shown(memory: int | None) -> dict[str, torch.Tensor]:
        rows = {}

        def visit(layer: str, uses: list) -> None:
            per_use = [torch.stack([(d * use.y).sum(1) for d in use.d], 1) for use in uses]
            rows[layer] = sum_of(per_use)

        visit_layers(model, batch, visit, positions="encoder", options=Options(memory=memory))
        return rows

    whole, few = shown(None), shown(WORKSPACE_BYTES + 300_000)
    assert whole.keys() == few.keys()
    assert all(relative(few[layer], whole[layer]) < 1e-10 for layer in whole)
    kernel = empirical_ntk(model, batch, [Propulsion(1, "encoder")], per_module=True)["propulsion"]
    for layer, rows in whole.items():
        flat = rows.flatten(0, 1)
        assert relative(flat @ flat.T, kernel.per_module[layer]) < tolerance(name)


def test_layers_of_a_wrapped_model_are_the_plain_ones_within() -> None:
    model, seen = wrap(build("mlp"), PropulsionConfig(2)), []
    visit_layers(model, vectors(N), lambda name, uses: seen.append(name))
    assert seen == ["0.base", "3.base"]


def test_the_model_comes_back_as_it_was_also_after_the_visitors_error() -> None:
    model = mlp().train()
    model[0].weight.requires_grad_(False)

    def visit(name: str, uses: list) -> None:
        raise KeyError(name)

    with pytest.raises(KeyError, match="0"):
        visit_layers(model, vectors(N), visit)
    assert model.training
    assert [p.requires_grad for p in model.parameters()] == [False, *[True] * 5]
    assert not model[0]._forward_hooks


def test_layers_that_are_no_plain_layers_are_refused() -> None:
    with pytest.raises(InputError, match=r"'owner'.*cannot be read off"):
        visit_layers(build("functional"), vectors(N), lambda name, uses: None)
