"""Damaged checkpoints: a clear error or tensors that agree with what was announced, no third."""

import io
import json
import math
import os
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save as save_safetensors

from ntk_propulsion.checkpoints import open_checkpoint, recognise
from ntk_propulsion.errors import InputError

TENSORS = {"a.weight": torch.ones(3, 2), "a.bias": torch.zeros(3), "b.propulsion": torch.ones(4)}


def pickled(*, new):
    buffer = io.BytesIO()
    torch.save(TENSORS, buffer, _use_new_zipfile_serialization=new)
    return buffer.getvalue()


FILES = {
    "x.safetensors": save_safetensors(TENSORS, {"format": "pt"}),
    "x.pt": pickled(new=True),
    "x.bin": pickled(new=False),
}
SHARD = "model-00001-of-00001.safetensors"
INDEX = json.dumps({"weight_map": dict.fromkeys(TENSORS, SHARD)}).encode()
# Bytes that mean something to one of the formats: pickle's instructions, zip's marks, JSON's.
TELLING = [
    b"c",
    b"R",
    b"b",
    b"\x85",
    b"\x86",
    b"\x93",
    b"h",
    b"q",
    b"r",
    b"}",
    b"(",
    b"t",
    b"Q",
    b".",
]
TELLING += [b"PK\x01\x02", b"PK\x05\x06", b"\xff\xff\xff\xff", b"cos\nsystem\n", b"\x00" * 8]
TELLING += [b'"', b"[", b"{", b"\\", b"-1", b"1e999", b"9" * 20, b"..", b"/", b"null", b"\xff"]

DAMAGES = ["change", "bit", "insert", "telling", "delete", "cut", "swap"]


@st.composite
def damaged(draw, content):
    """The content with a few bytes changed, put in, or taken out, or cut off."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        what = draw(
            st.sampled_from(["change", "bit", "insert", "telling", "delete", "cut", "swap"])
        )
        if what == "change":
            data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif what == "bit" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif what == "insert":
            data[at:at] = draw(st.binary(max_size=9))
        elif what == "telling":
            piece = draw(st.sampled_from(TELLING))
            data[at : at + draw(st.integers(0, len(piece)))] = piece
        elif what == "delete":
            del data[at : at + draw(st.integers(1, 9))]
        elif what == "cut" and at > len(data) // 2:
            del data[at:]
        elif what == "swap":
            other = draw(st.integers(0, len(data)))
            data[at : at + 8], data[other : other + 8] = data[other : other + 8], data[at : at + 8]
    return bytes(data)


def read_all(path):
    """Read everything; a damaged file may do nothing else than fail with an InputError."""
    try:
        checkpoint = open_checkpoint(path)
        recognise(checkpoint)
        for name, (shape, dtype) in checkpoint.items():
            tensor = checkpoint.tensor(name)
            assert tuple(tensor.shape) == shape
            assert tensor.dtype == dtype
            assert tensor.is_contiguous()
            assert tensor.numel() == math.prod(shape)
            tensor.double().sum()
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
        assert len(str(error)) < 1000  # noqa: PT017
        return False
    return True


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch):
    def run(*args):
        raise AssertionError("code ran")

    for name in ("system", "popen", "execv", "posix_spawn"):
        monkeypatch.setattr(os, name, run)


@pytest.mark.parametrize("name", FILES)
def test_what_the_damaged_files_come_from_is_good(folder, name):
    (folder / name).write_bytes(FILES[name])
    assert read_all(folder / name)


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=150)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_read_as_announced(folder, name, data):
    (folder / name).write_bytes(data.draw(damaged(FILES[name])))
    read_all(folder / name)


@settings(max_examples=100)
@given(data=st.data())
def test_a_damaged_safetensors_header_is_refused_or_read_as_announced(folder, data):
    good = FILES["x.safetensors"]
    length = struct.unpack("<Q", good[:8])[0]
    header = data.draw(damaged(good[8 : 8 + length]))
    path = folder / "header.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + good[8 + length :])
    read_all(path)


@pytest.mark.parametrize("name", ["model.safetensors.index.json", "config.json"])
@settings(max_examples=60)
@given(data=st.data())
def test_a_damaged_index_or_configuration_is_refused_or_read_as_announced(folder, name, data):
    (folder / SHARD).write_bytes(FILES["x.safetensors"])
    (folder / "model.safetensors.index.json").write_bytes(INDEX)
    (folder / "config.json").write_text('{"model_type": "roberta", "degree": 15}')
    (folder / name).write_bytes(data.draw(damaged((folder / name).read_bytes())))
    read_all(folder)


@settings(max_examples=100)
@given(content=st.binary(max_size=64), head=st.sampled_from([b"", b"\x80\x02", b"PK\x03\x04"]))
def test_any_bytes_are_refused(folder, head, content):
    (folder / "any.pt").write_bytes(head + content)
    assert not read_all(folder / "any.pt")
