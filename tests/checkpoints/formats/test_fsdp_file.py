import torch

from ntk_propulsion.checkpoints import open_checkpoint
from tests.checkpoints.saved import assert_holds, state


def test_fsdp_s_whole_state_dict_is_read_from_a_trainer_s_checkpoint(tmp_path):
    torch.save(state(), tmp_path / "pytorch_model_fsdp.bin")
    torch.save({"state": {}, "param_groups": []}, tmp_path / "optimizer.bin")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    checkpoint = open_checkpoint(tmp_path)
    assert_holds(checkpoint, state())
    assert checkpoint.config == {"model_type": "bert"}
