import json

import pytest
import torch
from safetensors.torch import save_file

from ntk_propulsion.auditing import audit_checkpoint
from ntk_propulsion.checkpoints.causes import told_by_names
from ntk_propulsion.errors import InputError
from tests.auditing import tuned
from tests.tiny_folders import save_model

LAYERS = [f"encoder.layer.{i}.attention.self.{part}" for i in range(2) for part in ("query", "key")]
KINDS = {
    "optimizer's state": [f"state.{n}.{m}" for n in LAYERS for m in ("exp_avg", "exp_avg_sq")],
    "quantised": [f"{n}.{m}" for n in LAYERS for m in ("qweight", "qzeros", "scales", "g_idx")],
    "AdapterHub": [f"x.{n}.adapters.a.adapter_down.0.weight" for n in LAYERS],
    "adapter's factors": [f"x.{n}.dora.{m}" for n in LAYERS for m in ("u", "v")],
    "adapter in a dialect": [f"x.{n}.adapter.fc1.weight" for n in LAYERS],
    "prompts or embeddings of new tokens": ["emb_params"],
}


@pytest.mark.parametrize("said", KINDS)
def test_what_is_no_model_is_told_by_its_names(tmp_path, said):
    save_file({name: torch.ones(2, 2) for name in KINDS[said]}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=f"it holds .*{said}|it is {said}") as caught:
        audit_checkpoint(tuned.base(), tmp_path / "x.safetensors")
    assert "tuned from" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("said", KINDS)
def test_so_is_a_base(tmp_path, said):
    save_file({name: torch.ones(2, 2) for name in KINDS[said]}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=r"the base (holds|is)"):
        audit_checkpoint(tmp_path / "x.safetensors", tuned.base())


@pytest.mark.parametrize("kind", ["bert", "gpt2", "roberta"])
def test_a_model_is_none_of_them(tmp_path, kind):
    from safetensors import safe_open

    folder = save_model(tmp_path / kind, kind)
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert told_by_names(list(file.keys())) is None


def test_another_architecture_is_told_by_its_configuration(tmp_path):
    with pytest.raises(InputError, match=r"says 'gpt2', the base's 'bert': give the base that"):
        audit_checkpoint(tuned.base(), save_model(tmp_path / "gpt2", "gpt2"))


def test_other_names_for_the_same_shapes_are_told_from_another_model(tmp_path):
    renamed = {f"w{i}": tensor for i, tensor in enumerate(tuned.base_state().values())}
    with pytest.raises(InputError, match="only the names differ: rename its keys") as caught:
        audit_checkpoint(tuned.base_state(), renamed)
    assert "tuned from" not in str(caught.value)
    other = {f"w{i}": torch.ones(3, 5) for i in range(9)}
    with pytest.raises(InputError, match=r"0 of its 9 matrices.*another model: give the base"):
        audit_checkpoint(tuned.base_state(), other)


def test_an_adapter_of_another_model_is_said_to_need_its_own_base(tmp_path):
    folder, _ = tuned.peft_adapter(tmp_path / "a", "lora", target_modules=["query"])
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "some/bert"
    (folder / "adapter_config.json").write_text(json.dumps(config))
    gpt2 = save_model(tmp_path / "gpt2", "gpt2")
    with pytest.raises(InputError, match="give the adapter's own base, 'some/bert'"):
        audit_checkpoint(gpt2, folder)
    with pytest.raises(InputError, match="give the adapter's own base"):
        audit_checkpoint(gpt2, tuned.adapter(tmp_path / "a.safetensors"))
