import pytest
import torch
from safetensors.torch import save_file

from ntk_propulsion.checkpoints import open_checkpoint
from ntk_propulsion.errors import InputError
from tests.checkpoints.saved import assert_holds, contiguous, save_legacy, state


@pytest.mark.parametrize("name", ["x.safetensors", "x.bin", "x.pt", "x.pth", "old.bin"])
def test_a_bare_file_is_read(tmp_path, name):
    path = tmp_path / name
    if name == "old.bin":
        save_legacy(state(), path)
    elif path.suffix == ".safetensors":
        save_file(contiguous(state()), path)
    else:
        torch.save(state(), path)
    assert_holds(open_checkpoint(path), state())


def test_a_file_is_read_as_what_it_is_not_as_it_is_called(tmp_path):
    save_file(contiguous(state()), tmp_path / "pytorch_model.bin")
    assert_holds(open_checkpoint(tmp_path / "pytorch_model.bin"), state())


def test_an_adapter_and_a_model_in_one_folder_are_not_chosen_between(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    save_file({"b": torch.ones(2)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(InputError, match="name one of the files"):
        open_checkpoint(tmp_path)
