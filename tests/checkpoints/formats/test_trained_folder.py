import torch
from safetensors.torch import save_file

from ntk_propulsion.checkpoints import open_checkpoint, recognise
from tests.checkpoints.saved import assert_holds


def test_a_training_s_folder_holds_trained_parameters_alone(tmp_path):
    save_file({"a.weight": torch.ones(2)}, tmp_path / "trained.safetensors")
    checkpoint = open_checkpoint(tmp_path)
    assert_holds(checkpoint, {"a.weight": torch.ones(2)})
    assert recognise(checkpoint).name == "trained"


def test_its_configuration_is_read_where_it_is_beside(tmp_path):
    save_file({"a.weight": torch.ones(2)}, tmp_path / "trained.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "roberta", "degree": 3}')
    assert open_checkpoint(tmp_path).config == {"model_type": "roberta", "degree": 3}
