"""The .distcp reader against torch's own."""

import copy
import io
import os
import pickle

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from ntk_propulsion.checkpoints import open_checkpoint
from ntk_propulsion.errors import InputError
from tests.checkpoints.saved import assert_holds, state


def write(folder, content):
    dcp.save(content, storage_writer=dcp.FileSystemWriter(folder), no_dist=True)
    return folder


def by_torch(folder, out):
    dcp_to_torch_save(folder, out)
    return torch.load(out)


@pytest.mark.parametrize(
    "content",
    [
        state(),
        {"model": state(), "step": 7},
        {"model": state(), "optim": {"state": {"a": {"exp_avg": torch.ones(2)}}}},
        {"app": {"model": state(), "optim": {"param_groups": [1], "state": {}}}},
        {"state_dict": state(), "args": {"lr": 1e-3, "names": ["a", "b"]}},
    ],
    ids=["bare", "model", "optimizer", "app", "settings"],
)
def test_a_checkpoint_is_read_as_torch_reads_it(tmp_path, content):
    write(tmp_path / "d", content)
    loaded = by_torch(tmp_path / "d", tmp_path / "all.pt")
    for key in ("app", "model", "state_dict"):
        loaded = loaded.get(key, loaded)
    checkpoint = open_checkpoint(tmp_path / "d")
    assert_holds(checkpoint, {k: v for k, v in loaded.items() if isinstance(v, torch.Tensor)})
    assert_holds(checkpoint, state())


CUTS = {
    "rows": [((0, 0), (3, 5)), ((3, 0), (1, 5)), ((4, 0), (3, 5))],
    "columns": [((0, 0), (7, 2)), ((0, 2), (7, 3))],
    "tiles": [((0, 0), (4, 2)), ((0, 2), (4, 3)), ((4, 0), (3, 2)), ((4, 2), (3, 3))],
    "uneven": [((0, 0), (7, 5)), ((7, 0), (0, 5))],
}


def sharded(folder, chunks, whole, dtype=None, change=None):
    """Write one tensor in chunks, each in the file of a rank, with torch's own dataclasses."""
    folder.mkdir()
    storage = {}
    for rank, (start, size) in enumerate(chunks):
        part = whole[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))].clone()
        buffer = io.BytesIO()
        torch.save(part, buffer)
        name = f"__{rank}_0.distcp"
        (folder / name).write_bytes(b"\7" * rank + buffer.getvalue())
        info = _StorageInfo(name, rank, len(buffer.getvalue()))
        storage[MetadataIndex("model.w", start, rank)] = info
    described = [ChunkStorageMetadata(torch.Size(a), torch.Size(n)) for a, n in chunks]
    properties = TensorProperties(dtype=dtype or whole.dtype)
    entry = TensorStorageMetadata(properties, whole.shape, described)
    table = Metadata({"model.w": entry}, {"model.w": ("model", "w")}, storage)
    if change:
        change(table)
    (folder / ".metadata").write_bytes(pickle.dumps(table))
    return folder


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.float16])
def test_chunks_over_several_files_are_put_together_as_torch_does(tmp_path, cut, dtype):
    whole = torch.arange(35).reshape(7, 5).to(dtype)
    folder = sharded(tmp_path / "d", CUTS[cut], whole)
    assert_holds(open_checkpoint(folder), {"w": whole})
    assert torch.equal(by_torch(folder, tmp_path / "x.pt")["model"]["w"], whole)


def test_a_table_of_an_older_torch_without_paths_is_read_under_its_flat_names(tmp_path):
    def change(table):
        table.planner_data = None
        del table.__dict__["storage_meta"], table.__dict__["version"]

    whole = torch.arange(35.0).reshape(7, 5)
    folder = sharded(tmp_path / "d", CUTS["rows"], whole, change=change)
    assert_holds(open_checkpoint(folder), {"model.w": whole})


def test_a_transposed_chunk_keeps_its_numbers(tmp_path):
    whole = torch.arange(35.0).reshape(5, 7).t()
    write(tmp_path / "d", {"w": whole})
    assert_holds(open_checkpoint(tmp_path / "d"), {"w": whole})


def _chunk_list(table):
    return table.state_dict_metadata["model.w"].chunks


def _drop(table):
    _chunk_list(table).pop()


def _twice(table):
    _chunk_list(table)[-1] = copy.deepcopy(_chunk_list(table)[0])


def _overlap(table):
    _chunk_list(table)[1].offsets = torch.Size((2, 0))


def _beyond(table):
    _chunk_list(table)[-1].offsets = torch.Size((6, 0))


def _infos(table):
    return list(table.storage_data.values())


def _elsewhere(name):
    def change(table):
        _infos(table)[0].relative_path = name

    return change


def _longer(table):
    _infos(table)[0].length += 10**6


def _before(table):
    _infos(table)[0].offset = -1


def _one_place(table):
    for info in _infos(table):
        info.relative_path, info.offset = "__0_0.distcp", 0


def _no_storage(table):
    table.storage_data.popitem()


def _huge(table):
    entry = table.state_dict_metadata["model.w"]
    entry.size = torch.Size((2**40, 2**10))
    entry.chunks[:] = [ChunkStorageMetadata(torch.Size((0, 0)), entry.size)]


def _wide(table):
    table.state_dict_metadata["model.w"].properties.dtype = torch.float64


def _compressed(table):
    for info in _infos(table):
        info.transform_descriptors = ["zstd"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (_drop, "hold 20 of its 35"),
        (_twice, "missing or twice|two chunks|hold"),
        (_overlap, "overlap|stored|where"),
        (_beyond, "beyond"),
        (_elsewhere("../outside.distcp"), "not in this folder"),
        (_elsewhere("/etc/passwd"), "not in this folder"),
        (_elsewhere("gone.distcp"), "missing: fetch"),
        (_longer, "cut off"),
        (_before, "cut off"),
        (_one_place, "share their bytes|claims more"),
        (_no_storage, "where"),
        (_huge, "where|claims more|impossible"),
        (_compressed, "compressed"),
    ],
)
def test_a_table_that_does_not_fit_its_files_is_refused(tmp_path, change, match):
    whole = torch.arange(35.0).reshape(7, 5)
    folder = sharded(tmp_path / "d", CUTS["rows"], whole, change=change)
    with pytest.raises(InputError, match=match):
        open_checkpoint(folder)


@pytest.mark.parametrize("dtype", [torch.int32, torch.float16])
def test_a_chunk_of_another_type_than_announced_is_refused_when_it_is_read(tmp_path, dtype):
    whole = torch.arange(35.0).reshape(7, 5)
    checkpoint = open_checkpoint(sharded(tmp_path / "d", CUTS["rows"], whole, dtype=dtype))
    with pytest.raises(InputError, match="another type or shape"):
        checkpoint.tensor("w")


class Payload:
    def __reduce__(self):
        return os.system, ("true",)


def test_a_table_that_asks_for_code_is_refused(tmp_path):
    whole = torch.arange(35.0).reshape(7, 5)

    def change(table):
        table.storage_meta = Payload()

    with pytest.raises(InputError, match="could run code"):
        open_checkpoint(sharded(tmp_path / "d", CUTS["rows"], whole, change=change))


def test_a_chunk_that_asks_for_code_is_refused(tmp_path):
    write(tmp_path / "d", {"w": torch.ones(2)})
    buffer = io.BytesIO()
    torch.save(Payload(), buffer)
    raw = buffer.getvalue()
    path = tmp_path / "d" / "__0_0.distcp"
    path.write_bytes(raw[: path.stat().st_size].ljust(path.stat().st_size, b"\0"))
    checkpoint = open_checkpoint(tmp_path / "d")
    with pytest.raises(InputError):
        checkpoint.tensor("w")


def test_any_damage_to_the_table_is_refused_or_read_as_announced(tmp_path):
    folder = write(tmp_path / "d", {"model": state()})
    path = folder / ".metadata"
    whole = path.read_bytes()
    for place in range(0, len(whole), 23):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            checkpoint = open_checkpoint(folder)
            for name, info in checkpoint.items():
                read = checkpoint.tensor(name)
                assert (tuple(read.shape), read.dtype) == info
        except InputError:
            pass
