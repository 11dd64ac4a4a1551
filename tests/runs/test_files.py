import os

import pytest

from ntk_propulsion.runs.files import write_atomically


def test_folders_are_made_and_text_is_utf8(tmp_path):
    path = tmp_path / "a" / "b.txt"
    write_atomically(path, "Zürich θ₀")
    assert path.read_bytes() == "Zürich θ₀".encode()


def test_a_failed_write_leaves_the_old_content_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "x"
    write_atomically(path, b"old")

    def fail(_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]
