import json
import os
import shutil

import pytest

from ntk_propulsion.conversion import convert_checkpoint, folders
from ntk_propulsion.conversion.folders import held
from ntk_propulsion.errors import InputError


def test_an_existing_output_is_kept_unless_it_may_be_overwritten(made, tmp_path):
    adapter, base, _ = made
    out = tmp_path / "out"
    convert_checkpoint(adapter, "wrapped", out=out, base=base)
    first = (out / "model.safetensors").read_bytes()
    with pytest.raises(InputError, match="exists: add --overwrite"):
        convert_checkpoint(adapter, "merged", out=out, base=base)
    assert (out / "model.safetensors").read_bytes() == first
    convert_checkpoint(adapter, "merged", out=out, base=base, overwrite=True)
    assert json.loads((out / "conversion.json").read_text())["to"] == "merged"
    assert sorted(os.listdir(tmp_path)) == ["a.safetensors", "base", "out"]


def test_a_folder_of_others_is_never_overwritten(made, tmp_path):
    adapter, base, _ = made
    out = tmp_path / "mine"
    out.mkdir()
    (out / "thesis.txt").write_text("years")
    for wrong, to in ((out, "merged"), (out, "adapter"), (adapter, "merged"), (base, "merged")):
        with pytest.raises(InputError, match="choose another --out"):
            convert_checkpoint(adapter, to, out=wrong, base=base, overwrite=True)
    with pytest.raises(InputError, match="holds what is converted"):
        convert_checkpoint(adapter, "merged", out=tmp_path, base=base, overwrite=True)
    assert (out / "thesis.txt").read_text() == "years"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_conversion_that_breaks_off_leaves_what_was_there(made, tmp_path, monkeypatch, error):
    adapter, base, _ = made
    out = tmp_path / "out"
    convert_checkpoint(adapter, "merged", out=out, base=base)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    monkeypatch.setattr(folders, "SHARD", 4096)
    save, count = folders.save_file, 0

    def break_off(*arguments):
        nonlocal count
        count += 1
        if count == 3:
            raise error
        save(*arguments)

    monkeypatch.setattr(folders, "save_file", break_off)
    with pytest.raises((InputError, KeyboardInterrupt), match=r"No space left|^$"):
        convert_checkpoint(adapter, "merged", out=out, base=base, overwrite=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert sorted(os.listdir(tmp_path)) == ["a.safetensors", "base", "out"]


def listed(folder):
    return sorted(os.listdir(folder))


def test_what_a_killed_conversion_left_goes_at_the_next(made, tmp_path):
    adapter, base, _ = made
    out = tmp_path / "out"
    convert_checkpoint(adapter, "merged", out=out, base=base)
    for name in (".out.12", ".out.replaced.13"):
        shutil.copytree(out, tmp_path / name)
    (tmp_path / ".out.14").mkdir()
    (tmp_path / ".out.14" / ".conversion.json.14").write_text("half")
    (tmp_path / ".a.safetensors.15").write_text("half of another output")
    convert_checkpoint(adapter, "merged", out=out, base=base, overwrite=True)
    assert listed(tmp_path) == [".a.safetensors.15", "a.safetensors", "base", "out"]
    with held(tmp_path / "a.safetensors"):
        pass
    assert listed(tmp_path) == ["a.safetensors", "base", "out"]


def test_an_earlier_output_that_a_kill_moved_aside_comes_back(made, tmp_path):
    adapter, base, _ = made
    out = tmp_path / "out"
    convert_checkpoint(adapter, "merged", out=out, base=base)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    out.rename(tmp_path / ".out.replaced.13")
    with pytest.raises(InputError, match="exists: add --overwrite"):
        convert_checkpoint(adapter, "merged", out=out, base=base)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert listed(tmp_path) == ["a.safetensors", "base", "out"]


@pytest.mark.parametrize("name", [".out.12", ".out.replaced.12"])
def test_a_folder_of_somebody_else_stays_whatever_its_name(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.txt").write_text("years")
    with held(tmp_path / "out"):
        pass
    assert listed(tmp_path) == [name]


def test_an_output_is_one_process_s_at_a_time(made, tmp_path):
    adapter, base, _ = made
    out = tmp_path / "deep" / "out"
    with held(out), pytest.raises(InputError, match="in use by process"):
        convert_checkpoint(adapter, "merged", out=out, base=base)
    assert listed(tmp_path) == ["a.safetensors", "base"]
    convert_checkpoint(adapter, "merged", out=out, base=base)
    assert listed(out.parent) == ["out"]
