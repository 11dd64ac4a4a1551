import json

import pytest
import torch

from ntk_propulsion.checkpoints import open_checkpoint
from ntk_propulsion.errors import InputError
from tests.checkpoints.saved import assert_holds, state
from tests.checkpoints.test_distributed import write


def test_accelerate_s_folder_of_fsdp_is_found_inside_a_trainer_s_checkpoint(tmp_path):
    """accelerate's save_fsdp_model writes {"model": ...} into pytorch_model_fsdp_0."""
    home = tmp_path / "checkpoint-10"
    write(home / "pytorch_model_fsdp_0", {"model": state()})
    write(home / "optimizer_0", {"optimizer": {"state": {"a": torch.ones(2)}}})
    (home / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (home / "trainer_state.json").write_text("{}")
    for place in (home, home / "pytorch_model_fsdp_0"):
        checkpoint = open_checkpoint(place)
        assert_holds(checkpoint, state())
        assert checkpoint.config == {"model_type": "bert"}
        assert "torch.distributed.checkpoint" in checkpoint.form


def test_a_second_model_is_said_not_to_be_read(tmp_path):
    for number in (0, 1):
        write(tmp_path / f"pytorch_model_fsdp_{number}", {"model": state()})
    assert any("fsdp_1 was not" in note for note in open_checkpoint(tmp_path).notes)


def test_a_checkpoint_that_was_not_finished_is_refused(tmp_path):
    write(tmp_path, {"model": state()})
    (tmp_path / ".metadata").unlink()
    with pytest.raises(InputError, match=r"no \.metadata: the checkpoint was not finished"):
        open_checkpoint(tmp_path)


def test_an_optimizer_alone_is_refused_as_that(tmp_path):
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    write(tmp_path, {"optimizer": optimizer.state_dict()})
    with pytest.raises(InputError, match="optimizer's state"):
        open_checkpoint(tmp_path)
