import gc
import json
import tracemalloc

import pytest
import torch
from safetensors.torch import save_file, save_model

from ntk_propulsion.checkpoints import open_checkpoint
from ntk_propulsion.errors import InputError
from tests.checkpoints.saved import assert_holds, contiguous, save_legacy, save_shards, state


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


def test_safetensors_go_before_pickles_and_a_note_says_so(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    torch.save({"a": torch.zeros(2)}, tmp_path / "pytorch_model.bin")
    checkpoint = open_checkpoint(tmp_path)
    assert_holds(checkpoint, {"a": torch.ones(2)})
    assert any("pytorch_model.bin was not" in note for note in checkpoint.notes)


def test_an_adapter_and_a_model_in_one_folder_are_not_chosen_between(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    save_file({"b": torch.ones(2)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(InputError, match="name one of the files"):
        open_checkpoint(tmp_path)


def test_an_adapter_without_configuration_is_refused(tmp_path):
    save_file({"b": torch.ones(2)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(InputError, match="no adapter_config"):
        open_checkpoint(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="peft_type"):
        open_checkpoint(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    assert open_checkpoint(tmp_path).adapter_config == {"peft_type": "LORA"}


def test_names_that_safetensors_left_out_are_ties(tmp_path):
    first, second = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    second.weight = first.weight
    save_model(torch.nn.ModuleDict({"a": first, "b": second}), str(tmp_path / "m.safetensors"))
    checkpoint = open_checkpoint(tmp_path / "m.safetensors")
    assert [set(tie) for tie in checkpoint.ties] == [{"a.weight", "b.weight"}]
    assert sum(name.endswith("weight") for name in checkpoint) == 1


def test_tensors_that_share_memory_in_a_pickle_are_ties(tmp_path):
    weight = torch.randn(3, 2)
    tensors = {"a": weight, "b": weight, "view": weight[:2], "other": torch.randn(3, 2)}
    for path in (tmp_path / "new.pt", tmp_path / "old.pt"):
        torch.save(tensors, path, _use_new_zipfile_serialization=path.stem == "new")
        assert open_checkpoint(path).ties == [("a", "b")]


def test_an_unknown_tensor_is_refused_with_near_names(tmp_path):
    save_file(contiguous(state()), tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=r"did you mean encoder\.weight"):
        open_checkpoint(tmp_path / "x.safetensors").tensor("encoder.weigh")


def test_what_is_read_may_be_written_to_without_changing_the_file(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "x.safetensors")
    checkpoint = open_checkpoint(tmp_path / "x.safetensors")
    checkpoint.tensor("a").zero_()
    assert torch.equal(checkpoint.tensor("a"), torch.ones(2))


def test_a_tensor_larger_than_the_free_memory_is_refused(tmp_path, monkeypatch):
    save_file({"a": torch.ones(1000)}, tmp_path / "x.safetensors")
    checkpoint = open_checkpoint(tmp_path / "x.safetensors")
    free = type("Free", (), {"available": 3999})
    monkeypatch.setattr("psutil.virtual_memory", lambda: free)
    with pytest.raises(InputError, match="of memory are free"):
        checkpoint.tensor("a")
    free.available = 4000
    assert len(checkpoint.tensor("a")) == 1000


def bytes_of_tensors() -> int:
    """What tensors that are alive hold."""
    gc.collect()
    return sum(each.nbytes for each in gc.get_objects() if type(each) is torch.Tensor)


@pytest.mark.parametrize("kind", ["x.pt", "x.safetensors"])
def test_reading_all_holds_a_few_tensors_at_a_time(tmp_path, kind):
    size, count = 4 * 2**20, 24
    tensors = {f"layer.{i}": torch.full((size // 4,), float(i)) for i in range(count)}
    torch.save(tensors, tmp_path / kind) if kind == "x.pt" else save_file(tensors, tmp_path / kind)
    del tensors
    before, most = bytes_of_tensors(), 0
    tracemalloc.start()  # it sees the buffers that files are read into
    try:
        checkpoint = open_checkpoint(tmp_path / kind)
        for name in checkpoint:
            tensor = checkpoint.tensor(name)
            most = max(most, bytes_of_tensors() - before)
            assert tensor[0] == float(name.removeprefix("layer."))
        _, buffers = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0 < most < 5 * size
    assert buffers < 5 * size
