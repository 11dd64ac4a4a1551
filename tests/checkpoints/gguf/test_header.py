import struct
from itertools import pairwise

import pytest

from ntk_propulsion.checkpoints.gguf import header as gguf_header
from ntk_propulsion.checkpoints.gguf.header import Entry, read_header, short_header
from ntk_propulsion.errors import InputError


def text(value):
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def setting(key, kind, packed):
    return text(key) + struct.pack("<I", kind) + packed


def tensor(name="a", shape=(4,), kind=0, start=0):
    return (
        text(name)
        + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        + struct.pack("<IQ", kind, start)
    )


def file(settings=(), tensors=(), *, version=3, counts=None):
    counts = counts or (len(tensors), len(settings))
    return b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join((*settings, *tensors))


ARCHITECTURE = setting("general.architecture", 8, text("llama"))


def read(tmp_path, content):
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    return read_header(path)


def test_settings_and_tensors_are_read(tmp_path):
    numbers = struct.pack("<IQ3i", 5, 3, 1, -2, 3)
    texts = struct.pack("<IQ", 8, 2) + text("x") + text("y")
    content = file(
        [
            ARCHITECTURE,
            setting("a.count", 4, struct.pack("<I", 7)),
            setting("a.rate", 6, struct.pack("<f", 0.5)),
            setting("a.flag", 7, b"\1"),
            setting("a.numbers", 9, numbers),
            setting("a.texts", 9, texts),
        ],
        [tensor("t", (8, 4), 2, 64)],
    )
    header = read(tmp_path, content)
    assert header.settings == {
        "general.architecture": "llama",
        "a.count": 7,
        "a.rate": 0.5,
        "a.flag": True,
        "a.numbers": [1, -2, 3],
        "a.texts": ["x", "y"],
    }
    assert header.entries == (Entry("t", (4, 8), 2, 64),)
    assert header.data % 32 == 0
    assert 0 <= header.data - len(content) < 32


def test_long_lists_are_counted_and_not_kept(tmp_path):
    tokens = struct.pack("<IQ", 8, 5000) + text("t") * 5000
    scores = struct.pack("<IQ", 6, 5000) + b"\0" * 20000
    lists = [setting("tokens", 9, tokens), setting("scores", 9, scores)]
    header = read(tmp_path, file([ARCHITECTURE, *lists]))
    assert header.settings["tokens"] == header.settings["scores"] == 5000
    assert len(short_header(header)) < 400


def test_the_short_header_says_the_same(tmp_path):
    content = file(
        [
            ARCHITECTURE,
            setting("n", 11, struct.pack("<q", -(2**40))),
            setting("big", 10, struct.pack("<Q", 2**64 - 1)),
            setting("x", 12, struct.pack("<d", 0.1)),
            setting("flag", 7, b"\0"),
            setting("list", 9, struct.pack("<IQ2d", 12, 2, 0.5, 1.5)),
        ],
        [tensor("one", (4,)), tensor("two", (2, 2), 8, 32)],
    )
    header = read(tmp_path, content)
    again = read(tmp_path, short_header(header))
    assert again.settings == header.settings
    assert [entry.name for entry in again.entries] == ["one", "two"]
    assert {entry.shape for entry in again.entries} == {(0,)}


def test_the_library_reads_the_short_header(tmp_path):
    gguf = pytest.importorskip("gguf")
    header = read(tmp_path, file([ARCHITECTURE], [tensor("one", (2**40, 2**20))]))
    (tmp_path / "short.gguf").write_bytes(short_header(header))
    reader = gguf.GGUFReader(str(tmp_path / "short.gguf"))
    assert [one.name for one in reader.tensors] == ["one"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"GGUX" + file()[4:], "no GGUF"),
        (file(version=1), "version 1"),
        (file(version=3 << 24), "other byte order"),
        (file(counts=(2**40, 0)), "more than any model"),
        (file(counts=(0, 2**40)), "more than any model"),
        (file(counts=(5, 0)), "cut off"),
        (file([ARCHITECTURE, ARCHITECTURE]), "appears twice"),
        (file([], [tensor(), tensor()]), "one name"),
        (file([setting("a", 99, b"")]), "unknown type 99"),
        (file([setting("a", 9, struct.pack("<IQ", 9, 1))]), "unknown type 9"),
        (file([setting("a", 9, struct.pack("<IQ", 8, 2**60))]), "more than any vocabulary"),
        (file([setting("a", 9, struct.pack("<IQ", 10, 2**60))]), "cut off"),
        (file([setting("a", 8, struct.pack("<Q", 2**63))]), "cut off"),
        (file([setting("a", 8, text(b"\xff\xfe"))]), "not UTF-8"),
        (file([], [tensor("a", (1,) * 5)]), "5 dimensions"),
        (file([], [tensor("a", (2**40, 2**40))]), "larger than any tensor"),
        (file([], [tensor("a", (1,), 0, 2**63)]), "larger than any tensor"),
        (file([setting("general.alignment", 4, b"\0" * 4)]), "alignment"),
        (file([setting("general.alignment", 8, text("x"))]), "alignment"),
    ],
)
def test_a_header_that_cannot_be_is_refused(tmp_path, content, words):
    with pytest.raises(InputError, match=words):
        read(tmp_path, content)


def test_no_more_than_a_header_may_take_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_header, "HEADER_LIMIT", 1000)
    long = setting("a", 8, text("x" * 2000))
    with pytest.raises(InputError, match="larger than any model's"):
        read(tmp_path, file([long]))


def test_texts_of_all_lists_are_bounded_together(tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_header, "TEXT_LIMIT", 10)
    one = struct.pack("<IQ", 8, 6) + text("") * 6
    with pytest.raises(InputError, match="12 texts"):
        read(tmp_path, file([setting("a", 9, one), setting("b", 9, one)]))


def test_a_file_that_ends_anywhere_is_refused(tmp_path):
    content = file([ARCHITECTURE, setting("n", 4, b"\1\0\0\0")], [tensor("t", (8, 4))])
    for length, _ in pairwise(range(len(content))):
        with pytest.raises(InputError):
            read(tmp_path, content[:length])
