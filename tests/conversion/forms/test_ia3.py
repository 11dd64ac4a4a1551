import json

import pytest
import torch
from safetensors.torch import load_file

from ntk_propulsion.conversion import convert_checkpoint
from ntk_propulsion.errors import InputError
from ntk_propulsion.propulsion import load_adapter, scalings
from tests.conversion.models import (
    ENCODER,
    adapter_of,
    assert_same,
    build,
    load,
    logits,
    save_base,
    tune,
)

peft = pytest.importorskip("peft", reason="peft is not installed")


def with_peft(kind, base, folder):
    return peft.PeftModel.from_pretrained(load(build(kind), base), folder).eval()


def converted(tmp_path, kind, to="ia3", **settings):
    """A base, a tuning of it, and the folder of the conversion."""
    tuned = tune(save_base(tmp_path / "base", kind), **{"positions": ENCODER, **settings})
    adapter = adapter_of(tuned, tmp_path / "a.safetensors")
    done = convert_checkpoint(adapter, to, out=tmp_path / to, base=tmp_path / "base")
    return tuned, done


@pytest.mark.parametrize("kind", ["bert", "roberta", "deberta", "gpt2"])
def test_peft_loads_the_adapter_with_the_same_logits(tmp_path, kind):
    plain = logits(build(kind).float())
    tuned, done = converted(tmp_path, kind)
    loaded = with_peft(kind, tmp_path / "base", done.out)
    assert_same(logits(loaded), logits(tuned), 1e-5)
    assert not torch.allclose(logits(loaded), plain, atol=1e-3)
    scaled = {n for n, _ in loaded.named_parameters() if "ia3_l" in n}
    assert len(scaled) == len(scalings(tuned)) == done.layers
    assert any("z" in note and "come back" in note for note in done.notes)


def test_ia3_scales_the_bias_with_the_output(tmp_path):
    tuned, done = converted(tmp_path, "bert", positions=("query",))
    name = "bert.encoder.layer.0.attention.self.query"
    loaded = with_peft("bert", tmp_path / "base", done.out)
    zero = torch.zeros(1, 1, 16)
    layer = dict(loaded.base_model.model.named_modules())[name]
    bias = layer.base_layer.bias
    assert bias.abs().min() > 0
    torch.testing.assert_close(layer(zero)[0, 0], bias * scalings(tuned)[name].gain())


@pytest.mark.parametrize("positions", ["encoder", "*.dense"])
def test_trained_layers_are_stored_whole(tmp_path, positions):
    tuned, done = converted(tmp_path, "roberta", positions=(positions,), train_head=True)
    config = json.loads((done.out / "adapter_config.json").read_text())
    assert sorted(config["modules_to_save"]) == ["classifier.dense", "classifier.out_proj"]
    assert_same(logits(with_peft("roberta", tmp_path / "base", done.out)), logits(tuned), 1e-5)
    assert any("stored whole" in note for note in done.notes)


def test_merging_the_adapter_gives_the_model_that_peft_merges(tmp_path):
    tuned, done = converted(tmp_path, "deberta", train_head=True)
    convert_checkpoint(done.out, "merged", out=tmp_path / "merged", base=tmp_path / "base")
    ours = load(build("deberta"), tmp_path / "merged")
    assert_same(logits(ours), logits(tuned), 1e-5)
    theirs = with_peft("deberta", tmp_path / "base", done.out).merge_and_unload()
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)


def test_an_adapter_back_from_ia3_has_the_same_gains_with_degree_one(tmp_path):
    tuned, done = converted(tmp_path, "bert")
    out = tmp_path / "back.safetensors"
    back = convert_checkpoint(done.out, "adapter", out=out, base=tmp_path / "base")
    assert back.degree == 1
    model = load_adapter(load(build("bert"), tmp_path / "base"), out)
    for name, scaling in scalings(tuned).items():
        assert torch.equal(scalings(model)[name].gain(), scaling.gain())
    assert torch.equal(logits(model), logits(tuned))


def test_with_a_degree_the_vectors_back_from_ia3_are_roots(tmp_path):
    tuned, done = converted(tmp_path, "bert")
    out = tmp_path / "back.safetensors"
    back = convert_checkpoint(done.out, "adapter", out=out, base=tmp_path / "base", degree=3)
    assert any("roots" in note for note in back.notes)
    model = load_adapter(load(build("bert"), tmp_path / "base"), out)
    for name, scaling in scalings(tuned).items():
        torch.testing.assert_close(scalings(model)[name].z, scaling.z)
    with pytest.raises(InputError, match=r"query has negative gains.*odd degree"):
        convert_checkpoint(
            done.out, "adapter", out=tmp_path / "no", base=tmp_path / "base", degree=4
        )


def test_an_embedding_s_vector_is_refused_by_name_as_peft_refuses_it(tmp_path):
    config = peft.IA3Config(target_modules=["word_embeddings"], feedforward_modules=[])
    with pytest.raises(ValueError, match="not supported"):
        peft.get_peft_model(build("bert"), config)
    with pytest.raises(InputError, match=r"bert.embeddings.word_embeddings .*not Embedding"):
        converted(tmp_path, "bert", positions=("all",))
    assert not (tmp_path / "ia3").exists()


def test_a_vector_that_scales_an_input_is_no_propulsion(tmp_path):
    base = save_base(tmp_path / "base", "bert")
    config = peft.IA3Config(
        target_modules=["key", "output.dense"], feedforward_modules=["output.dense"]
    )
    peft.get_peft_model(base, config).save_pretrained(tmp_path / "ia3")
    with pytest.raises(InputError, match=r"output.dense.ia3_l.*scales its layer's input"):
        convert_checkpoint(tmp_path / "ia3", "merged", out=tmp_path / "out", base=tmp_path / "base")


def test_other_adapters_of_peft_are_refused_by_kind(tmp_path):
    base = save_base(tmp_path / "base", "bert")
    peft.get_peft_model(base, peft.LoraConfig(target_modules=["key"])).save_pretrained(
        tmp_path / "lora"
    )
    with pytest.raises(InputError, match=r"LORA.*only the folder of an IA3"):
        convert_checkpoint(
            tmp_path / "lora", "merged", out=tmp_path / "out", base=tmp_path / "base"
        )


def test_a_layer_all_of_which_is_trained_leaves_nothing_to_ia3(tmp_path):
    with pytest.raises(InputError, match="scaled but not trained"):
        converted(tmp_path, "bert", positions=("query",), biases="scaled")


def test_gains_beyond_the_dtype_are_refused_by_name(tmp_path):
    model = save_base(tmp_path / "base", "bert")
    tuned = tune(model, positions=("query",), degree=55)
    with torch.no_grad():
        next(iter(scalings(tuned).values())).z[1] = 50.0
    adapter = adapter_of(tuned, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"z\*\*55 of bert\S+query overflow"):
        convert_checkpoint(adapter, "ia3", out=tmp_path / "out", base=tmp_path / "base")


def test_the_vectors_file_is_as_small_as_the_vectors(tmp_path):
    tuned, done = converted(tmp_path, "bert")
    tensors = load_file(done.out / "adapter_model.safetensors")
    entries = sum(scaling.z.numel() for scaling in scalings(tuned).values())
    assert sum(tensor.numel() for tensor in tensors.values()) == entries
