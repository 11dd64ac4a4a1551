import torch
from safetensors.torch import save_file

from ntk_propulsion.checkpoints import describe_dialect, open_checkpoint, recognise
from tests.propulsion.conftest import build


def test_a_plain_model_is_base_weights_and_a_head():
    model = build("roberta")
    dialect = describe_dialect(model.state_dict())
    assert dialect.name == "plain"
    assert set(dialect.roles.values()) == {"base weight", "head"}
    assert all(n.startswith("classifier") == (r == "head") for n, r in dialect.roles.items())
    assert dialect.plain == {name: name for name in model.state_dict()}


def test_trained_parameters_of_a_plain_model_are_told_from_its_weights(tmp_path):
    save_file(
        {"x.dense.bias": torch.ones(2), "classifier.weight": torch.ones(2)},
        tmp_path / "trained.safetensors",
    )
    dialect = recognise(open_checkpoint(tmp_path))
    assert dialect.name == "trained"
    assert dialect.roles == {"x.dense.bias": "trained bias", "classifier.weight": "head"}
