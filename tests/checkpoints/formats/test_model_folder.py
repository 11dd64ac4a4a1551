import json

import pytest
import torch
from safetensors.torch import save_file

from ntk_propulsion.checkpoints import open_checkpoint
from tests.checkpoints.saved import assert_holds, contiguous, save_shards, state


def test_a_folder_with_safetensors_is_read_with_its_configuration(tmp_path):
    save_file(contiguous(state()), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    checkpoint = open_checkpoint(tmp_path)
    assert_holds(checkpoint, state())
    assert checkpoint.config == {"model_type": "bert"}
    assert checkpoint.form == "folder with model.safetensors"


@pytest.mark.parametrize("pickled", [False, True])
def test_shards_are_read_as_one_checkpoint(tmp_path, pickled):
    checkpoint = open_checkpoint(save_shards(tmp_path, state(), pickled=pickled))
    assert_holds(checkpoint, state())
    assert len(checkpoint.files) == 2
    assert "2 shards" in checkpoint.form


def test_a_folder_with_a_pickle_is_read(tmp_path):
    torch.save(state(), tmp_path / "pytorch_model.bin")
    assert_holds(open_checkpoint(tmp_path), state())


def test_safetensors_go_before_pickles_and_a_note_says_so(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    torch.save({"a": torch.zeros(2)}, tmp_path / "pytorch_model.bin")
    checkpoint = open_checkpoint(tmp_path)
    assert_holds(checkpoint, {"a": torch.ones(2)})
    assert any("pytorch_model.bin was not" in note for note in checkpoint.notes)


@pytest.mark.parametrize("safe", [True, False])
def test_what_accelerate_saves_of_a_training_is_read(tmp_path, safe):
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    models = [torch.nn.Linear(3, 2), torch.nn.Linear(2, 2)]
    prepared = [accelerator.prepare(m, torch.optim.AdamW(m.parameters()))[0] for m in models]
    accelerator.save_state(str(tmp_path / "s"), safe_serialization=safe)
    checkpoint = open_checkpoint(tmp_path / "s")
    assert_holds(checkpoint, {n: t.detach() for n, t in prepared[0].state_dict().items()})
    assert any("model_1." in note and "were not" in note for note in checkpoint.notes)
