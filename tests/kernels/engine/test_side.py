"""One side of a kernel: what it knows of the model, and its plain gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.engine.side import Side
from ntk_propulsion.kernels.outputs import Loss, resolve_outputs
from ntk_propulsion.kernels.tunings import BitFit, Propulsion
from tests.architectures import ALL, build, tokens, vectors
from tests.kernels.oracle import gradients


def side(name: str, n: int = 3, outputs: object = "logits") -> Side:
    model = build(name).requires_grad_(True)
    bindings = {tuning.name: tuning.bind(model) for tuning in (BitFit(), Propulsion(3))}
    return Side.of(model, bindings, ALL[name].batch(n), resolve_outputs(outputs))


def test_it_knows_its_examples_parameters_and_the_features_of_each_layer() -> None:
    found = side("mlp", 4)
    assert (found.n, found.survey.outputs) == (4, 3)
    assert found.parameters.keys() == {name for name, _ in found.model.named_parameters()}
    assert found.names == {id(p): name for name, p in found.model.named_parameters()}
    assert found.features.keys() == {"0", "3"}
    assert {tuning for each in found.features.values() for tuning, _ in each} == {"propulsion"}


def test_targets_of_the_outputs_go_with_the_examples() -> None:
    found = side("mlp", 4, Loss([0, 1, 2, 0]))
    assert found.batch.targets.tolist() == [0, 1, 2, 0]
    with pytest.raises(InputError, match="one label per example"):
        side("mlp", 4, Loss([0]))


@pytest.mark.parametrize(("name", "batch"), [("mlp", vectors(3)), ("bert", tokens(3))])
def test_plain_gradients_are_the_rows_of_the_jacobian(name: str, batch: object) -> None:
    found, model = side(name), build(name)
    chosen = list(found.parameters)[-3:]
    expected = gradients(model, batch, "logits", [model.get_parameter(n) for n in chosen])
    rows: list[Tensor] = [
        torch.cat([gradient.flatten() for gradient in row])
        for row in zip(*found.gradients(chosen).values(), strict=True)
    ]
    torch.testing.assert_close(torch.stack(rows), expected)
