import pytest
import torch
from safetensors.torch import save_file

from ntk_propulsion.checkpoints import open_checkpoint
from ntk_propulsion.errors import InputError


def test_an_adapter_without_configuration_is_refused(tmp_path):
    save_file({"b": torch.ones(2)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(InputError, match="no adapter_config"):
        open_checkpoint(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="peft_type"):
        open_checkpoint(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "\\u001b[31m<b>"}')
    with pytest.raises(InputError, match=r"\(peft_type\): '\\x1b\[31m<b>' is none"):
        open_checkpoint(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    assert open_checkpoint(tmp_path).adapter_config == {"peft_type": "LORA"}


def adapter(folder, value=1.0):
    """The least that is a PEFT adapter's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"m.lora_A.weight": torch.full((2, 2), value)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    return folder


def test_the_one_adapter_below_a_folder_is_read_and_said(tmp_path):
    adapter(tmp_path / "french", 3.0)
    (tmp_path / "logs").mkdir()
    found = open_checkpoint(tmp_path)
    assert found.tensor("m.lora_A.weight")[0, 0] == 3
    assert found.adapter_config == {"peft_type": "LORA"}
    assert any("'french' was read" in note for note in found.notes)


def test_of_several_adapters_below_a_folder_one_has_to_be_named(tmp_path):
    for name in ("a", "b", "c", "d", "e"):
        adapter(tmp_path / name)
    with pytest.raises(InputError, match=r"5 PEFT adapters, 'a', 'b', 'c', 'd' and 1 more: name"):
        open_checkpoint(tmp_path)
    assert open_checkpoint(tmp_path / "b")


def test_an_adapter_goes_before_those_below_it_and_they_are_named(tmp_path):
    adapter(adapter(tmp_path, 1.0) / "other", 2.0)
    found = open_checkpoint(tmp_path)
    assert found.tensor("m.lora_A.weight")[0, 0] == 1
    assert any("other adapters too, 'other'" in note for note in found.notes)


def test_adapters_that_a_link_leads_to_are_not_looked_for(tmp_path):
    adapter(tmp_path / "elsewhere" / "one")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "one").symlink_to(tmp_path / "elsewhere" / "one")
    with pytest.raises(InputError, match="is not a checkpoint"):
        open_checkpoint(tmp_path / "here")


def test_adapters_as_peft_saves_several_are_told_apart(tmp_path):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["0"])
    model = peft.get_peft_model(torch.nn.Sequential(torch.nn.Linear(3, 3)), config)
    model.add_adapter("other", config)
    model.save_pretrained(tmp_path)
    assert any("'other'" in note for note in open_checkpoint(tmp_path).notes)
    model.save_pretrained(tmp_path / "named", selected_adapters=["other"])
    assert any("'other' was read" in note for note in open_checkpoint(tmp_path / "named").notes)
