"""AdapterHub's folders, laid out by hand as adapters 1.x writes them."""

import json

import pytest
import torch
from safetensors.torch import save_file

from ntk_propulsion.checkpoints import open_checkpoint
from ntk_propulsion.errors import InputError

LAYER = "roberta.encoder.layer.0"
BOTTLENECK = {"adh_version": "1.0", "mh_adapter": False, "reduction_factor": 16}


def folder_of(home, inner, safe=False):
    config = {
        "config": inner,
        "hidden_size": 16,
        "model_class": "RobertaAdapterModel",
        "model_name": "roberta-base",
        "model_type": "roberta",
        "name": "sst-2",
        "version": "adapters.1.1.0",
    }
    (home / "adapter_config.json").write_text(json.dumps(config))
    tensors = {f"{LAYER}.output.adapters.sst-2.adapter_down.0.weight": torch.ones(1, 16)}
    if safe:
        save_file(tensors, home / "adapter.safetensors")
    else:
        torch.save(tensors, home / "pytorch_adapter.bin")
    (home / "head_config.json").write_text("{}")
    torch.save({"heads.sst-2.1.weight": torch.ones(2, 16)}, home / "pytorch_model_head.bin")
    return home


@pytest.mark.parametrize("safe", [False, True])
@pytest.mark.parametrize(
    ("inner", "match"),
    [
        (BOTTLENECK, "bottleneck adapter.*no weight of the base expresses"),
        ({"architecture": "prefix_tuning"}, "prefixes.*no weight"),
        ({"architecture": "prompt_tuning"}, "prompts.*no weight"),
        ({"architecture": "lora", "r": 8, "alpha": 16}, r"merge_adapter\('sst-2'\)"),
        ({"architecture": "\x1b[31m"}, "bottleneck"),
        ("name", "bottleneck"),
    ],
)
def test_an_adapter_is_refused_with_what_it_is(tmp_path, inner, match, safe):
    with pytest.raises(InputError, match=match) as caught:
        open_checkpoint(folder_of(tmp_path, inner, safe))
    assert "\x1b" not in str(caught.value)
    assert "tuned from" not in str(caught.value)


def test_a_head_alone_is_said_to_be_one(tmp_path):
    folder_of(tmp_path, BOTTLENECK)
    (tmp_path / "pytorch_adapter.bin").unlink()
    with pytest.raises(InputError, match="a head of AdapterHub"):
        open_checkpoint(tmp_path)


def test_a_file_of_that_name_without_its_configuration_is_none(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "adapter.safetensors")
    with pytest.raises(InputError, match=r"name one of its files, 'adapter\.safetensors'"):
        open_checkpoint(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(InputError, match="name one of its files"):
        open_checkpoint(tmp_path)
