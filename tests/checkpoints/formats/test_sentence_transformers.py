"""sentence-transformers' folders, as its versions 2 to 5 write them."""

import json

import pytest
import torch
from safetensors.torch import save_file

from ntk_propulsion.checkpoints import open_checkpoint
from ntk_propulsion.errors import InputError
from tests.checkpoints.saved import assert_holds, contiguous, state

KINDS = "sentence_transformers.models."


def dense():
    return {"linear.weight": torch.randn(2, 3), "linear.bias": torch.randn(2)}


def folder_of(home, *, inner="", pickled=False, modules=()):
    place = home / inner
    place.mkdir(parents=True, exist_ok=True)
    (place / "config.json").write_text(json.dumps({"model_type": "bert"}))
    if pickled:
        torch.save(state(), place / "pytorch_model.bin")
    else:
        save_file(contiguous(state()), place / "model.safetensors")
    listed = [{"idx": 0, "name": "0", "path": inner, "type": f"{KINDS}Transformer"}]
    for number, (kind, tensors) in enumerate(modules, 1):
        path = f"{number}_{kind}"
        (home / path).mkdir()
        (home / path / "config.json").write_text("{}")
        if tensors and pickled:
            torch.save(tensors, home / path / "pytorch_model.bin")
        elif tensors:
            save_file(tensors, home / path / "model.safetensors")
        entry = {"idx": number, "name": str(number), "path": path, "type": f"{KINDS}{kind}"}
        listed.append(entry)
    (home / "modules.json").write_text(json.dumps(listed))
    return home


@pytest.mark.parametrize("inner", ["", "0_Transformer"])
@pytest.mark.parametrize("pickled", [False, True])
def test_the_transformer_is_read_under_its_plain_names_and_later_modules_too(
    tmp_path, inner, pickled
):
    last = dense()
    modules = [("Pooling", None), ("Dense", last), ("Normalize", None)]
    folder = folder_of(tmp_path, inner=inner, pickled=pickled, modules=modules)
    checkpoint = open_checkpoint(folder)
    assert_holds(checkpoint, state() | {f"2.{name}": tensor for name, tensor in last.items()})
    assert checkpoint.config == {"model_type": "bert"}
    assert any("'2_Dense' ('Dense') is read too" in note for note in checkpoint.notes)
    assert checkpoint.rounded("2.linear.bias", torch.ones(2).double()).dtype == torch.float32


def test_a_folder_without_later_weights_is_read_as_a_plain_model(tmp_path):
    checkpoint = open_checkpoint(folder_of(tmp_path, modules=[("Pooling", None)]))
    assert checkpoint.form == "folder with model.safetensors"
    assert_holds(checkpoint, state())


def test_a_folder_of_a_module_without_weights_may_be_absent_and_no_other(tmp_path):
    folder_of(tmp_path, modules=[("Normalize", None), ("Dense", dense())])
    (tmp_path / "1_Normalize" / "config.json").unlink()
    (tmp_path / "1_Normalize").rmdir()
    assert "2.linear.weight" in open_checkpoint(tmp_path)
    (tmp_path / "2_Dense").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="'2_Dense', which is missing"):
        open_checkpoint(tmp_path)


def test_an_adapter_in_such_a_folder_is_an_adapter(tmp_path):
    folder_of(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    save_file({"a.lora_A.weight": torch.ones(2, 2)}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    assert set(open_checkpoint(tmp_path)) == {"a.lora_A.weight"}


@pytest.mark.parametrize(
    "modules",
    [
        '{"a": 1}',
        "[]",
        "[1]",
        '[{"path": ""}]',
        '[{"path": 3, "type": "x"}]',
        '[{"path": "", "type": "T"}, {"path": "../x", "type": "D"}]',
        '[{"path": "", "type": "T"}, {"path": "/etc", "type": "D"}]',
        '[{"path": "", "type": "T"}, {"path": "gone", "type": "D"}]',
        "[" * 5000,
        json.dumps([{"path": "", "type": "T"}] * 65),
    ],
)
def test_a_list_of_modules_that_makes_no_sense_is_refused(tmp_path, modules):
    folder_of(tmp_path)
    (tmp_path / "modules.json").write_text(modules)
    with pytest.raises(InputError, match=r"modules|gone|folder"):
        open_checkpoint(tmp_path)


def test_what_a_list_of_modules_says_is_quoted(tmp_path):
    folder_of(tmp_path, modules=[("Dense", dense())])
    listed = json.loads((tmp_path / "modules.json").read_text())
    listed[1]["type"] = "x.\x1b[31mred" + "y" * 500
    (tmp_path / "modules.json").write_text(json.dumps(listed))
    notes = " ".join(open_checkpoint(tmp_path).notes)
    assert "\x1b" not in notes
    assert len(notes) < 300
