import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, ViTConfig

from ntk_propulsion.errors import InputError
from ntk_propulsion.models.loading import load_model
from tests.tiny_folders import make_task, save_model

TWO, THREE, REGRESSION = make_task(), make_task(classes=3), make_task(classes=0)


@pytest.fixture
def bert(tmp_path):
    return save_model(tmp_path / "bert")


def parameters(loaded):
    return {name: p.detach() for name, p in loaded.model.named_parameters()}


def test_packaged_minilm_loads_quietly_with_a_new_head(capfd):
    loaded = load_model("minilm", TWO)
    assert loaded.model.num_parameters() == 22_713_986
    assert not loaded.model.training
    assert loaded.notes == []
    assert "MiniLM" in loaded.source
    assert capfd.readouterr() == ("", "")


def test_seed_fixes_what_the_checkpoint_does_not_hold_and_leaves_the_global_state(tmp_path):
    folder = str(save_model(tmp_path, head=False))
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    one, same, other = (parameters(load_model(folder, TWO, seed=s)) for s in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(one[name], same[name]) for name in one)
    differing = {name for name in one if not torch.equal(one[name], other[name])}
    assert differing == {"classifier.weight"}


@pytest.mark.parametrize("kind", ["bert", "electra", "distilbert", "roberta", "gpt2", "llama"])
@pytest.mark.parametrize("task", [TWO, THREE, REGRESSION], ids=["two", "three", "regression"])
def test_model_has_the_outputs_of_the_task(tmp_path, kind, task):
    loaded = load_model(str(save_model(tmp_path, kind)), task)
    outputs = loaded.model(input_ids=torch.tensor([[0, 4, 5, 2]])).logits
    assert outputs.shape == (1, task.num_labels)
    wanted = "regression" if task is REGRESSION else "single_label_classification"
    assert loaded.model.config.problem_type == wanted


def test_dtype_is_as_asked(bert):
    loaded = load_model(str(bert), TWO, dtype=torch.float64)
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float64}


def test_checkpoint_head_is_kept_and_others_are_drawn(bert):
    saved = load_file(bert / "model.safetensors")["classifier.weight"]
    assert torch.equal(
        parameters(load_model(str(bert), TWO, head="checkpoint"))["classifier.weight"], saved
    )
    for head in ("random", "probe"):
        drawn = parameters(load_model(str(bert), TWO, head=head))["classifier.weight"]
        assert not torch.equal(drawn, saved)


def test_checkpoint_head_that_does_not_fit_is_refused(bert, tmp_path):
    with pytest.raises(InputError, match="has 2 outputs, task 'tiny' needs 3: use the head"):
        load_model(str(bert), THREE, head="checkpoint")
    with pytest.raises(InputError, match=r"without a head .classifier.bias is missing"):
        load_model("minilm", TWO, head="checkpoint")
    load_model(str(bert), THREE)


def test_missing_pooler_is_drawn_and_noted(bert):
    weights = load_file(bert / "model.safetensors")
    kept = {name: w for name, w in weights.items() if ".pooler." not in name}
    save_file(kept, bert / "model.safetensors", metadata={"format": "pt"})
    loaded = load_model(str(bert), TWO)
    assert any("without a pooler" in note for note in loaded.notes)


def test_weights_that_do_not_fit_the_config_are_refused(bert):
    config = json.loads((bert / "config.json").read_text())
    (bert / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(InputError, match=r"do not fit its config.json, 16 tensors .*layer\.2"):
        load_model(str(bert), TWO)


def test_folder_without_config_weights_or_tokenizer_is_refused(bert):
    (bert / "tokenizer.json").unlink()
    (bert / "tokenizer_config.json").unlink()
    with pytest.raises(InputError, match="no tokenizer files"):
        load_model(str(bert), TWO)
    (bert / "model.safetensors").unlink()
    with pytest.raises(InputError, match="has no weights"):
        load_model(str(bert), TWO)
    (bert / "config.json").unlink()
    with pytest.raises(InputError, match=r"has no config\.json"):
        load_model(str(bert), TWO)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(bert, value):
    weights = load_file(bert / "model.safetensors")
    weights["bert.encoder.layer.1.output.dense.weight"][0, :3] = value
    save_file(weights, bert / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"3 of 512 weights in .*layer\.1\.output\.dense\.weight"):
        load_model(str(bert), TWO)


@pytest.mark.parametrize("content", [b"", b"garbage" * 99])
def test_damaged_safetensors_are_refused_in_one_line(bert, content):
    (bert / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"cannot load model .*damaged") as caught:
        load_model(str(bert), TWO)
    assert "\n" not in str(caught.value)


def test_truncated_safetensors_are_refused(bert):
    whole = (bert / "model.safetensors").read_bytes()
    (bert / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cannot load model .*damaged"):
        load_model(str(bert), TWO)


def test_pickled_weights_load_and_pickled_code_does_not(bert, tmp_path):
    weights = load_file(bert / "model.safetensors")
    (bert / "model.safetensors").unlink()
    torch.save(weights, bert / "pytorch_model.bin")
    loaded = load_model(str(bert), TWO, head="checkpoint")
    assert torch.equal(parameters(loaded)["classifier.weight"], weights["classifier.weight"])
    torch.save({"bert.x": _Evil(tmp_path / "ran")}, bert / "pytorch_model.bin")
    with pytest.raises(InputError, match="hold more than tensors"):
        load_model(str(bert), TWO)
    assert not (tmp_path / "ran").exists()


class _Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.path),)


def test_model_type_without_the_head_is_refused(tmp_path):
    ViTConfig().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="without a sequence classification head"):
        load_model(str(tmp_path), TWO)


def test_code_of_the_checkpoint_does_not_run(bert):
    code = "from pathlib import Path\nPath('ran').touch()\n"
    (bert / "modeling_own.py").write_text(code)
    config = {"model_type": "own", "auto_map": {"AutoConfig": "modeling_own.Config"}}
    (bert / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="--trust-remote-code"):
        load_model(str(bert), TWO)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("minlm", "did you mean minilm"),
        ("owner/absent-model", "neither minilm, nor a folder, nor to be had from the hub"),
        ("./absent", "no folder ./absent"),
        ("a/b/c", "no folder a/b/c"),
    ],
)
def test_unknown_model_is_refused_in_one_line(name, message):
    with pytest.raises(InputError, match=message) as caught:
        load_model(name, TWO)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("device", ["cuda:99", "gpu"])
def test_absent_or_unknown_device_is_refused(bert, device):
    with pytest.raises(InputError, match=r"device .*(try cpu|cpu or cuda)"):
        load_model(str(bert), TWO, device=device)


def test_unknown_head_is_refused(bert):
    with pytest.raises(InputError, match="did you mean random"):
        load_model(str(bert), TWO, head="randm")


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_decoder_without_padding_token_pads_with_end_of_text(tmp_path, kind):
    loaded = load_model(str(save_model(tmp_path, kind)), make_task(pairs=True))
    assert loaded.tokenizer.pad_token == "</s>"
    assert loaded.model.config.pad_token_id == 2
    assert any("end-of-text token </s> pads" in note for note in loaded.notes)
    assert any("no separator" in note for note in loaded.notes)


def test_tokenizer_that_cannot_pad_is_refused(tmp_path):
    folder = save_model(tmp_path, "gpt2")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "eos_token": None}))
    with pytest.raises(InputError, match=r"neither a padding nor .*: set pad_token in"):
        load_model(str(folder), TWO)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert"])
def test_a_padding_token_beyond_the_embeddings_is_refused(tmp_path, kind):
    folder = save_model(tmp_path, kind)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)
    with pytest.raises(
        InputError, match=r"padding token \[PAD\] .* is number 19, beyond the 19 emb"
    ):
        load_model(str(folder), TWO)


def test_a_task_without_a_test_split_loads(bert):
    assert load_model(str(bert), replace(TWO, test=())).notes == []
