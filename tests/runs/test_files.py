import errno
import os

import pytest

from ntk_propulsion.runs.files import (
    flush,
    is_leftover,
    leftovers,
    make_folder,
    new_folder,
    remove,
    remove_leftover,
    write_atomically,
)


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


def synced(monkeypatch):
    """Note what is written to the disk, and what is renamed, in order."""
    real, replace, seen = os.fsync, os.replace, []

    def fsync(opened):
        seen.append(os.path.basename(os.readlink(f"/proc/self/fd/{opened}")))
        real(opened)

    def renamed(source, target):
        seen.append("renamed")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", renamed)
    return seen


def test_contents_reach_the_disk_before_the_name_and_the_name_before_the_return(
    tmp_path, monkeypatch
):
    seen = synced(monkeypatch)
    write_atomically(tmp_path / "x", b"1")
    assert seen == [f".x.{os.getpid()}", "renamed", tmp_path.name]
    seen.clear()
    write_atomically(tmp_path / "a" / "b" / "x", b"1")
    assert seen[:2] == [tmp_path.name, "a"]  # the new folders' own names first
    seen.clear()
    remove(tmp_path / "x")
    remove(tmp_path / "x")
    assert seen == [tmp_path.name]


def test_a_folder_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    with new_folder(tmp_path / "a" / "b") as inside:
        (inside / "x").write_text("1")
        assert os.listdir(tmp_path / "a") == [f".b.{os.getpid()}"]
    assert (tmp_path / "a" / "b" / "x").read_text() == "1"
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "c") as inside:
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ["a"]


def test_a_folder_system_that_cannot_flush_folders_does_not_matter(tmp_path, monkeypatch):
    def fail(opened):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", fail)
    flush(tmp_path)
    (tmp_path / "x").write_text("")
    with pytest.raises(OSError, match="Invalid"):
        flush(tmp_path / "x")


def test_made_folders_are_told(tmp_path):
    assert make_folder(tmp_path / "a" / "b") == [tmp_path / "a", tmp_path / "a" / "b"]
    assert make_folder(tmp_path / "a" / "c") == [tmp_path / "a" / "c"]
    assert make_folder(tmp_path / "a") == []
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="Not a directory"):
        make_folder(tmp_path / "file" / "x")


def test_only_names_of_half_written_files_are_leftovers(tmp_path):
    ours = {".run.json.1", ".run.json.99999", ".a.png.7"}
    for name in (*ours, "run.json", ".run.json", ".run.json.swp", ".run.json.12~", "run.json.12"):
        (tmp_path / name).write_text("")
    assert {path.name for path in leftovers(tmp_path)} == ours
    assert {path.name for path in leftovers(tmp_path, "*.png")} == {".a.png.7"}
    assert {path.name for path in leftovers(tmp_path.parent, f"{tmp_path.name}/*")} == ours
    assert is_leftover(".run.json.1", "run.json")
    assert not is_leftover(".run.json.1", "run")
    assert not is_leftover(".runXjson.1", "run.json")


def test_a_leftover_goes_whatever_it_is_and_a_link_without_what_it_leads_to(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "x").write_text("")
    (tmp_path / ".a.1").symlink_to(tmp_path / "kept")
    (tmp_path / ".b.1").mkdir()
    (tmp_path / ".b.1" / "x").write_text("")
    for path in leftovers(tmp_path):
        remove_leftover(path)
    assert os.listdir(tmp_path) == ["kept"]
    assert os.listdir(tmp_path / "kept") == ["x"]
