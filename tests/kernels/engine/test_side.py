"""One side of a kernel: what it knows of the model, and its plain gradients."""

from __future__ import annotations

import pytest

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.engine.side import Side
from ntk_propulsion.kernels.outputs import Loss, resolve_outputs
from ntk_propulsion.kernels.tunings import IA3, BitFit, Propulsion
from tests.architectures import ALL, build, vectors


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
    assert set(found.tuning_of.values()) == {"propulsion"}


def test_targets_of_the_outputs_go_with_the_examples() -> None:
    found = side("mlp", 4, Loss([0, 1, 2, 0]))
    assert found.batch.targets.tolist() == [0, 1, 2, 0]
    with pytest.raises(InputError, match="one label per example"):
        side("mlp", 4, Loss([0]))


def test_a_feature_is_named_by_layer_and_tuning_and_two_kinds_at_a_layer_apart() -> None:
    model = build("mlp").requires_grad_(True)
    tunings = [Propulsion(2), IA3(outputs=("0",), inputs=("0",))]
    bindings = {tuning.name: tuning.bind(model) for tuning in tunings}
    found = Side.of(model, bindings, vectors(3), resolve_outputs("logits"))
    assert [key for key, _ in found.features["0"]] == [
        "0 (propulsion)",
        "0 (ia3)",
        "0 (ia3, inputs)",
    ]
    assert found.tuning_of["0 (ia3, inputs)"] == "ia3"


def test_plain_autograd_differentiates_by_the_chosen_parameters_and_all_features() -> None:
    found = side("mlp").plain(["0.bias"])
    assert set(found.leaves) == {"0.bias", "0 (propulsion)", "3 (propulsion)"}
    assert all(not found.leaves[key].any() for key in found.displacements)
