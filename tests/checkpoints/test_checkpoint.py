import gc
import tracemalloc

import pytest
import torch
from safetensors.torch import save_file

from ntk_propulsion.checkpoints import open_checkpoint
from ntk_propulsion.errors import InputError
from tests.checkpoints.saved import contiguous, state


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


@pytest.mark.parametrize("kind", ["x.pt", "x.safetensors"])
def test_values_are_rounded_as_the_file_stores_them(tmp_path, kind):
    tensors = {"a": torch.ones(2).bfloat16()}
    torch.save(tensors, tmp_path / kind) if kind == "x.pt" else save_file(tensors, tmp_path / kind)
    values = torch.tensor([1.001, 2.0])
    found = open_checkpoint(tmp_path / kind).rounded("a", values)
    assert torch.equal(found, torch.tensor([1.0, 2.0]).bfloat16())


def bytes_of_tensors() -> int:
    """What tensors that are alive hold."""
    gc.collect()
    return sum(each.nbytes for each in gc.get_objects() if type(each) is torch.Tensor)


@pytest.mark.parametrize("kind", ["x.pt", "x.safetensors"])
def test_reading_all_holds_a_few_tensors_at_a_time(tmp_path, kind):
    size, count = 4 * 2**20, 6
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
