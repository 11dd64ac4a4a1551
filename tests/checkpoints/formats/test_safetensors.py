import json
import struct

import pytest
import torch
from safetensors.torch import save_model

from ntk_propulsion.checkpoints import open_checkpoint
from ntk_propulsion.errors import InputError
from tests.checkpoints.saved import assert_holds


def header(entries, data=b"\0" * 16):
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype="F32", shape=(4,), offsets=(0, 16)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


GOOD = header({"a": entry()})


@pytest.mark.parametrize(
    "content",
    [
        GOOD[:-1],
        GOOD[:20],
        GOOD[:4],
        GOOD + b"\0",
        struct.pack("<Q", 2**60) + GOOD[8:],
        header({"a": entry(shape=(2**50,), offsets=(0, 2**52))}),
        header({"a": entry(shape=(2**40, 2**40), offsets=(0, 16))}),
        header({"a": entry(dtype="F99")}),
        header({"a": entry(dtype="F64")}),
        header({"a": entry(shape=(5,))}),
        header({"a": entry(shape=(-4,))}),
        header({"a": entry(), "b": entry()}),
        header({"a": entry(offsets=(16, 0))}),
        header({"a": {"dtype": "F32"}}),
        header([1, 2]),
        header({}, b""),
        GOOD.replace(b'"F32"', b"12345"),
    ],
)
def test_damaged_safetensors_are_refused(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    for place in (path, tmp_path):
        with pytest.raises(InputError, match=r"model\.safetensors"):
            open_checkpoint(place)


def test_the_header_that_the_damaged_ones_come_from_is_good(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(GOOD)
    assert_holds(open_checkpoint(tmp_path), {"a": torch.zeros(4)})


def test_a_safetensors_header_with_one_name_twice_is_refused(tmp_path):
    one = json.dumps(entry())
    text = f'{{"a": {one}, "a": {one}}}'.encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 16)
    with pytest.raises(InputError, match=r"twice|whole"):
        open_checkpoint(tmp_path / "x.safetensors")


def test_names_that_safetensors_left_out_are_ties(tmp_path):
    first, second = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    second.weight = first.weight
    save_model(torch.nn.ModuleDict({"a": first, "b": second}), str(tmp_path / "m.safetensors"))
    checkpoint = open_checkpoint(tmp_path / "m.safetensors")
    assert [set(tie) for tie in checkpoint.ties] == [{"a.weight", "b.weight"}]
    assert sum(name.endswith("weight") for name in checkpoint) == 1


def test_a_sparse_file_that_no_memory_maps_is_refused_in_one_line(tmp_path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**42], "data_offsets": [0, 2**44]}})
    path = tmp_path / "x.safetensors"
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header.encode())
        try:
            file.truncate(8 + len(header) + 2**44 - 2**13)
        except OSError:
            pytest.skip("no such file on this file system")
    with pytest.raises(InputError, match="not a whole safetensors file"):
        open_checkpoint(path)
