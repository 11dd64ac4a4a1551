import json
import os

import pytest
import torch
from safetensors.torch import save_file

from ntk_propulsion.checkpoints import open_checkpoint
from ntk_propulsion.checkpoints.files import read_json
from ntk_propulsion.errors import InputError
from tests.checkpoints.saved import assert_holds, save_shards, state


def test_a_file_that_shrinks_after_it_was_opened_is_an_error_not_a_crash(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(100_000)}, path)
    checkpoint = open_checkpoint(path)
    os.truncate(path, 1000)
    with pytest.raises(InputError, match="cut off"):
        checkpoint.tensor("a")


def index_of(folder):
    return folder / "model.safetensors.index.json"


def test_an_index_may_not_lead_out_of_its_folder(tmp_path):
    folder = save_shards(tmp_path / "model", state())
    save_file({"encoder.weight": torch.zeros(4, 3)}, tmp_path / "outside.safetensors")
    index = json.loads(index_of(folder).read_text())
    absolute = str(tmp_path / "outside.safetensors")
    for name in ("../outside.safetensors", absolute, "./x", "a/b", "..", "", "\0", "a\\b"):
        index["weight_map"]["encoder.weight"] = name
        index_of(folder).write_text(json.dumps(index))
        with pytest.raises(InputError, match="not in this folder"):
            open_checkpoint(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_links_may_not_lead_out_of_a_folder(tmp_path, name):
    folder = tmp_path / "model"
    folder.mkdir()
    save_file({"a": torch.ones(1)}, folder / "model.safetensors")
    (folder / name).unlink(missing_ok=True)
    save_file({"a": torch.ones(1)}, tmp_path / "outside")
    (folder / name).symlink_to(tmp_path / "outside")
    with pytest.raises(InputError, match="leads out of its folder"):
        open_checkpoint(folder)


def test_links_within_a_folder_and_into_the_hub_cache_are_followed(tmp_path):
    folder = tmp_path / "models--x" / "snapshots" / "abc"
    blobs = tmp_path / "models--x" / "blobs"
    folder.mkdir(parents=True)
    blobs.mkdir()
    save_file({"a": torch.ones(1)}, blobs / "123")
    (folder / "model.safetensors").symlink_to("../../blobs/123")
    assert_holds(open_checkpoint(folder), {"a": torch.ones(1)})
    (tmp_path / "link").symlink_to(folder)
    assert_holds(open_checkpoint(tmp_path / "link"), {"a": torch.ones(1)})
    (folder / "model.safetensors").unlink()
    save_file({"a": torch.ones(1)}, folder / "weights")
    (folder / "model.safetensors").symlink_to("weights")
    assert_holds(open_checkpoint(folder), {"a": torch.ones(1)})


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda i: i.pop("weight_map"), "no weight_map"),
        (lambda i: i.update(weight_map=[]), "no weight_map"),
        (lambda i: i.update(weight_map={}), "no weight_map"),
        (lambda i: i["weight_map"].update({"flags": 3}), "no file"),
        (lambda i: i["weight_map"].update({"flags": None}), "no file"),
        (lambda i: i["weight_map"].update({"flags": "gone.safetensors"}), "missing"),
        (lambda i: i["weight_map"].update({"more": i["weight_map"]["flags"]}), "does not hold"),
    ],
)
def test_an_index_that_does_not_fit_its_shards_is_refused(tmp_path, change, match):
    save_shards(tmp_path, state())
    index = json.loads(index_of(tmp_path).read_text())
    change(index)
    index_of(tmp_path).write_text(json.dumps(index))
    with pytest.raises(InputError, match=match):
        open_checkpoint(tmp_path)


def test_an_index_with_one_name_twice_is_refused(tmp_path):
    save_shards(tmp_path, state())
    text = index_of(tmp_path).read_text()
    again = '"weight_map": {"flags": "model-00001-of-00002.safetensors", '
    index_of(tmp_path).write_text(text.replace('"weight_map": {', again))
    with pytest.raises(InputError, match="'flags' appears twice"):
        open_checkpoint(tmp_path)


def test_tensors_that_the_index_leaves_out_are_noted(tmp_path):
    save_shards(tmp_path, state())
    index = json.loads(index_of(tmp_path).read_text())
    del index["weight_map"]["flags"]
    index_of(tmp_path).write_text(json.dumps(index))
    checkpoint = open_checkpoint(tmp_path)
    assert "flags" not in checkpoint
    assert any("leaves out 1 tensors" in note and "flags" in note for note in checkpoint.notes)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "[" * 100_000, '{"a": 1, "a": 2}', "\xff", "9" * 5000, '"x"'],
)
def test_a_configuration_that_is_no_json_object_is_refused(tmp_path, text):
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"config\.json"):
        open_checkpoint(tmp_path)


def test_a_huge_configuration_is_not_read(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(2**40)  # a hole: no byte of it is on the disk
    with pytest.raises(InputError, match="more than any checkpoint"):
        open_checkpoint(tmp_path)


def test_pipes_devices_and_sockets_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "model.safetensors")
    (tmp_path / "linked.pt").symlink_to("/dev/zero")
    for path in (tmp_path, tmp_path / "model.safetensors", "/dev/zero", tmp_path / "linked.pt"):
        with pytest.raises(InputError, match="not a regular file"):
            open_checkpoint(path)


def test_loops_and_impossible_paths_are_refused(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "model.safetensors").symlink_to("model.safetensors")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "pytorch_model.bin").symlink_to(tmp_path)
    for path in (tmp_path / "loop", tmp_path, tmp_path / "inner", "a\0b", "x" * 5000):
        with pytest.raises(InputError):
            open_checkpoint(path)


@pytest.mark.parametrize("content", [b"", b"hello, world", b"\0" * 100, b"<html></html>"])
@pytest.mark.parametrize("name", ["x.pt", "x.safetensors", "x.bin", "x"])
def test_what_is_no_checkpoint_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=str(tmp_path / name)):
        open_checkpoint(tmp_path / name)


def test_a_folder_without_weights_says_what_it_has_instead(tmp_path):
    with pytest.raises(InputError, match="no checkpoint at"):
        open_checkpoint(tmp_path / "gone")
    with pytest.raises(InputError, match="it is empty"):
        open_checkpoint(tmp_path)
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(InputError, match="not a checkpoint"):
        open_checkpoint(tmp_path)
    (tmp_path / "special.pt").write_bytes(b"")
    with pytest.raises(InputError, match=r"'special\.pt'"):
        open_checkpoint(tmp_path)
    (tmp_path / "checkpoint-500").mkdir()
    with pytest.raises(InputError, match="'checkpoint-500'"):
        open_checkpoint(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").chmod(0)
    with pytest.raises(InputError, match="permissions"):
        open_checkpoint(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": %s}' % ("9" * 400), "a number of 400 digits"),
        ('{"a": %s}' % ("9" * 5000), "a number of 5000 digits"),
        ('{"a": ["\\ud800"]}', "half a surrogate pair"),
        ('{"\\udfff": 1}', "half a surrogate pair"),
        ('{"a": ' + "[" * 100 + "]" * 100 + "}", "nested too deeply"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "JSON|nested"),
    ],
    ids=["digits", "more digits", "value", "key", "deep", "deeper"],
)
def test_what_json_can_say_and_nothing_bears_is_refused(tmp_path, text, said):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        read_json(path)
    assert str(path) in str(caught.value)


def test_numbers_that_a_setting_may_have_are_read(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"a": 1000000000000000019884624838656, "b": -1e999, "c": [NaN]}')
    assert read_json(path)["a"] == 1000000000000000019884624838656
