"""Kernels of a layer's own calls, against autograd's."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial

import pytest
import torch

from ntk_propulsion.kernels import visit_layers
from ntk_propulsion.kernels.blocks import LayerUse, bias_rows, feature_rows, weight_kernel
from ntk_propulsion.kernels.tunings import Feature, output_scaling
from tests.architectures import ALL, build
from tests.kernels.oracle import gradients, relative


@pytest.mark.parametrize("name", ["mlp", "module-reuse", "bert", "padded-embedding"])
def test_weights_biases_and_features_of_every_layer(name: str) -> None:
    model, batch = build(name), ALL[name].batch(4)
    seen: dict[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}

    def visit(layer: str, uses: list[LayerUse]) -> None:
        rows, displaced = partial(output_scaling, degree=2), lambda module, delta: nullcontext()
        feature = Feature(layer, 1, rows, displaced, needs_output=True)
        each = torch.stack([feature.rows(use) for use in uses]).sum(0)
        seen[layer] = (weight_kernel(uses), bias_rows(uses), each - feature_rows(feature, uses))

    visit_layers(model, batch, visit)
    assert seen
    for layer, (kernel, rows, difference) in seen.items():
        module = model.get_submodule(layer)
        J = gradients(model, batch, ALL[name].outputs, [module.weight])
        assert relative(kernel, J @ J.T) < 1e-12
        if getattr(module, "bias", None) is not None:
            expected = gradients(model, batch, ALL[name].outputs, [module.bias])
            torch.testing.assert_close(rows, expected, rtol=1e-9, atol=1e-12)
        assert float(difference.abs().max()) < 1e-12
