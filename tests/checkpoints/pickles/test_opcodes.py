import importlib
import io
import pickle
import zipfile

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ntk_propulsion.checkpoints import open_checkpoint
from ntk_propulsion.checkpoints.pickles.opcodes import Call, Global, Reference, read_pickle
from ntk_propulsion.errors import InputError

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=9), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(value=plain, protocol=st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_data_is_read_as_pickle_reads_it(value, protocol):
    stream = io.BytesIO(pickle.dumps(value, protocol) + b"behind it")
    assert read_pickle(stream, ()) == value
    assert stream.read() == b"behind it"


def test_what_a_pickle_asks_for_stays_a_record():
    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", "0") if isinstance(value, Storage) else None

    class Size:
        def __reduce__(self):
            return torch.Size, ((2, 3),)

    buffer = io.BytesIO()
    Pickler(buffer, 2).dump([Size(), Storage()])
    references: list[Reference] = []
    size = Global("torch", "Size")
    call, reference = read_pickle(io.BytesIO(buffer.getvalue()), {size}, references)
    assert isinstance(call, Call)
    assert (call.function, call.arguments) == (size, ((2, 3),))
    assert references == [reference]
    assert reference.key == ("storage", "0")


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
def test_pickles_made_to_exhaust_are_refused_before_they_do(tmp_path, bomb):
    path = tmp_path / "x.pt"
    for content in (bomb, _in_zip(bomb)):
        path.write_bytes(content)
        with pytest.raises(InputError):
            open_checkpoint(path)


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


def doubling(pairs, copies):
    """A pickle that makes a dictionary of one list over and over."""
    listed = b"]q\x00(" + b"X\x01\x00\x00\x00aK\x01\x86" * pairs + b"e"
    return b"\x80\x02" + listed + b"ccollections\nOrderedDict\n(h\x00tR" * copies + b"."


def test_a_list_that_is_copied_over_and_over_counts_each_time():
    allowed = {Global("collections", "OrderedDict")}
    assert read_pickle(io.BytesIO(doubling(3, 5)), allowed) == {"a": 1}
    with pytest.raises(InputError, match="more instructions than any state dict"):
        read_pickle(io.BytesIO(doubling(10_000, 1000)), allowed)


@pytest.mark.parametrize("made", [b"(K\x01tR.", b"(]]tR.", b"(X\x02\x00\x00\x00abtR.", b"(}tR."])
def test_an_ordered_dictionary_is_made_of_a_list_of_pairs_only(made):
    allowed = {Global("collections", "OrderedDict")}
    with pytest.raises(InputError, match="damaged"):
        read_pickle(io.BytesIO(b"\x80\x02ccollections\nOrderedDict\n" + made), allowed)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("torch._utils _rebuild_qtensor", "quantised tensors: dequantise"),
        ("torch qint8", "quantised tensors"),
        ("torch QUInt8Storage", "quantised tensors"),
        ("torch._utils _rebuild_sparse_tensor", "sparse tensors: make them dense"),
        ("torch._utils _rebuild_nested_tensor", "nested tensors"),
        ("torch int4", "numbers below a byte"),
        ("torch bits8", "numbers below a byte"),
        ("torch._utils _rebuild_wrapper_subclass", "a class or device of their own"),
        ("os system", "nothing of it was run"),
        ("torch._C _LegacyStorage", "nothing of it was run"),
    ],
)
def test_tensors_that_are_not_read_are_refused_by_what_they_are(asked, said):
    module, name = asked.split()
    pickled = f"c{module}\n{name}\n.".encode()
    with pytest.raises(InputError, match=said) as caught:
        read_pickle(io.BytesIO(pickled), ())
    assert f"{module}.{name}" in str(caught.value)
