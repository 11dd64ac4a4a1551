import importlib
import io
import os
import pickle
import time
import zipfile
from collections import OrderedDict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from ntk_propulsion.checkpoints import open_checkpoint
from ntk_propulsion.errors import InputError
from tests.checkpoints.saved import assert_holds, save_legacy, state


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def save(content, path, form):
    if form == "zip":
        torch.save(content, path)
    elif form == "legacy":
        save_legacy(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=int(form)))
    return path


@pytest.mark.parametrize("form", ["zip", "legacy", "0", "2", "4", "5"])
@pytest.mark.parametrize("name", ["x.pt", "pytorch_model.bin"])
def test_a_malicious_pickle_is_refused_by_name_and_nothing_of_it_runs(tmp_path, form, name):
    marker = tmp_path / "ran"
    path = save({"a": torch.ones(2), "b": Payload(marker)}, tmp_path / name, form)
    if form in ("0", "2", "4", "5"):  # a plain pickle of a tensor already asks for more
        save({"b": Payload(marker)}, path, form)
    target = path if name == "x.pt" else tmp_path
    with pytest.raises(InputError, match=r"'(posix|nt)\.system'.*nothing of it was run"):
        open_checkpoint(target)
    assert not marker.exists()
    if form == "4":  # the payload is real: unpickled, it runs
        pickle.loads(path.read_bytes())
        assert marker.exists()


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_pickled_model_is_refused_by_name(tmp_path, form):
    path = save(torch.nn.Linear(2, 2), tmp_path / "x.pt", form)
    with pytest.raises(InputError, match=r"torch\.nn\.modules\.linear\.Linear"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    "function", [torch.load, torch._utils._rebuild_sparse_tensor, getattr, exec, torch.hub.load]
)
def test_functions_of_torch_are_refused_too(tmp_path, function):
    class Call:
        def __reduce__(self):
            return function, ("x", "y")

    with pytest.raises(InputError, match="asks for"):
        open_checkpoint(save({"a": Call()}, tmp_path / "x.pt", "zip"))


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_reading_agrees_with_torch_load(tmp_path, form):
    linear = torch.nn.Linear(3, 2)
    tensors = {**state(), "parameter": linear.weight, **linear.state_dict(prefix="m.")}
    path = save(OrderedDict(tensors), tmp_path / "x.pt", form)
    reference = torch.load(path, weights_only=True)
    assert_holds(open_checkpoint(path), {name: t.detach() for name, t in reference.items()})


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "uint16", "complex64", "int8"])
def test_rarer_dtypes_are_read(tmp_path, dtype):
    tensor = torch.tensor([1.0, 0.5, 3.0]).to(getattr(torch, dtype))
    torch.save({"a": tensor}, tmp_path / "x.pt")
    read = open_checkpoint(tmp_path / "x.pt").tensor("a")
    assert read.dtype == tensor.dtype
    assert bytes(read.view(torch.uint8)) == bytes(tensor.view(torch.uint8))


@given(
    shape=st.lists(st.integers(0, 4), max_size=4),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_every_view_is_read_as_torch_reads_it(tmp_path_factory, shape, seed, data):
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    tensor = tensor.permute(data.draw(st.permutations(range(len(shape)))))
    for dim, size in enumerate(tensor.shape):
        first = data.draw(st.integers(0, size))
        step = data.draw(st.integers(1, 3))
        tensor = tensor[(slice(None),) * dim + (slice(first, None, step),)]
    path = tmp_path_factory.mktemp("views") / "x.pt"
    torch.save({"a": tensor}, path)
    assert_holds(open_checkpoint(path), {"a": tensor})


@pytest.mark.parametrize("key", ["state_dict", "model", "module", "model_state_dict"])
def test_a_nested_state_dict_is_found_and_a_note_says_where(tmp_path, key):
    content = {key: state(), "epoch": 3, "rng_state": torch.arange(9)}
    torch.save(content, tmp_path / "x.pt")
    checkpoint = open_checkpoint(tmp_path / "x.pt")
    assert_holds(checkpoint, state())
    assert any(f"under its key {key!r}" in note for note in checkpoint.notes)
    assert any("'epoch', 'rng_state'" in note for note in checkpoint.notes)


def test_two_nested_state_dicts_are_not_chosen_between(tmp_path):
    torch.save({"model": state(), "state_dict": state(1)}, tmp_path / "x.pt")
    with pytest.raises(InputError, match="several state dicts"):
        open_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize("content", [{}, {"model": {}}, {"a": 1}, [1], torch.ones(2), 7])
def test_what_holds_no_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"holds|state dict"):
        open_checkpoint(tmp_path / "x.pt")


def rezip(path, change, compression=zipfile.ZIP_STORED):
    """Write a zip archive anew, each member as `change(name, data)` says, None to leave it out."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            changed = change(name, data)
            if changed is not None:
                archive.writestr(name, changed)
    return path


def test_a_compressed_archive_is_refused(tmp_path):
    torch.save({"a": torch.zeros(10_000_000)}, tmp_path / "x.pt")
    path = rezip(tmp_path / "x.pt", lambda _, data: data, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    with pytest.raises(InputError, match="compressed"):
        open_checkpoint(path)


def test_a_member_that_claims_more_than_the_file_is_refused(tmp_path):
    torch.save({"a": torch.zeros(100)}, tmp_path / "x.pt")
    data = (tmp_path / "x.pt").read_bytes()
    old = (400).to_bytes(4, "little") * 2
    assert data.count(old) >= 1
    (tmp_path / "x.pt").write_bytes(data.replace(old, (2**31 - 1).to_bytes(4, "little") * 2))
    with pytest.raises(InputError, match=r"claims more|cut off"):
        open_checkpoint(tmp_path / "x.pt")


def test_a_tensor_that_repeats_or_overruns_its_storage_is_refused(tmp_path):
    torch.save({"a": torch.zeros(1).expand(1_000_000, 1_000_000)}, tmp_path / "x.pt")
    with pytest.raises(InputError, match="claims more"):
        open_checkpoint(tmp_path / "x.pt")
    torch.save({"a": torch.zeros(1000)}, tmp_path / "y.pt")
    shorter = rezip(tmp_path / "y.pt", lambda n, data: data[:8] if n.endswith("data/0") else data)
    with pytest.raises(InputError, match="does not fit"):
        open_checkpoint(shorter)


def test_missing_parts_and_other_byte_orders_are_refused(tmp_path):
    for part, match in (("data/0", "missing"), ("data.pkl", r"no data\.pkl")):
        torch.save({"a": torch.zeros(10)}, tmp_path / "x.pt")
        rezip(tmp_path / "x.pt", lambda n, data, part=part: None if n.endswith(part) else data)
        with pytest.raises(InputError, match=match):
            open_checkpoint(tmp_path / "x.pt")
    torch.save({"a": torch.zeros(10)}, tmp_path / "x.pt")
    rezip(tmp_path / "x.pt", lambda n, data: b"big" if n.endswith("byteorder") else data)
    with pytest.raises(InputError, match="big-endian"):
        open_checkpoint(tmp_path / "x.pt")


def test_a_zip_archive_of_something_else_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(InputError, match=r"no data\.pkl"):
        open_checkpoint(tmp_path / "x.pt")
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "y.pt"))
    with pytest.raises(InputError):
        open_checkpoint(tmp_path / "y.pt")


def _pickled(*parts):
    return b"\x80\x02" + b"".join(parts) + b"."


def test_a_pickle_with_millions_of_tensors_worth_of_instructions_is_left_off(tmp_path):
    (tmp_path / "x.pt").write_bytes(_pickled(b"N" * 3_000_000))
    with pytest.raises(InputError, match="more instructions"):
        open_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize(
    "bomb",
    [
        _pickled(b"r\xff\xff\xff\xff"),
        _pickled(b"\x8e" + (2**62).to_bytes(8, "little")),
        _pickled(b"\x8b\xff\xff\xff\x7f"),
        # Thirty-two levels of (x, x): to hash the last takes four billion steps.
        _pickled(b"}", b")", *(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(32)))[
            :-1
        ]
        + b"Ns.",
        b"I" + b"9" * 1_000_000 + b"\n.",
        b"\x80\x02" + b"(" * 300_000,
        b"\x80\x04\x95" + b"\xff" * 8,
    ],
    ids=["memo", "bytes", "integer", "hash", "digits", "marks", "frame"],
)
def test_pickles_made_to_exhaust_are_refused_soon(tmp_path, bomb):
    path = tmp_path / "x.pt"
    for content in (bomb, _in_zip(bomb)):
        path.write_bytes(content)
        start = time.monotonic()
        with pytest.raises(InputError):
            open_checkpoint(path)
        assert time.monotonic() - start < 20


def _in_zip(data):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", data)
    return buffer.getvalue()


def test_reading_imports_nothing_that_a_pickle_names(tmp_path, monkeypatch):
    marker = tmp_path / "imported"
    (tmp_path / "evil_module.py").write_text(f"open({str(marker)!r}, 'w').close()")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "x.pt").write_bytes(b"\x80\x02cevil_module\nrun\n.")
    with pytest.raises(InputError, match=r"evil_module\.run"):
        open_checkpoint(tmp_path / "x.pt")
    assert not marker.exists()
    importlib.import_module("evil_module")
    assert marker.exists()


def test_a_safetensors_file_is_never_unpickled(tmp_path):
    marker = tmp_path / "ran"
    save({"a": Payload(marker)}, tmp_path / "model.safetensors", "4")
    with pytest.raises(InputError, match="safetensors"):
        open_checkpoint(tmp_path)
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    save({"a": Payload(marker)}, tmp_path / "pytorch_model.bin", "4")
    assert_holds(open_checkpoint(tmp_path), {"a": torch.ones(1)})
    assert not marker.exists()
