import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from ntk_propulsion.conversion import convert_checkpoint, folders
from ntk_propulsion.errors import InputError
from ntk_propulsion.propulsion import PropulsionConfig, scalings, wrap
from tests.conversion.forms import (
    QKV,
    adapter_of,
    build,
    load,
    logits,
    move_vectors,
    put_inside,
    save_base,
    save_public,
    tune,
    wrap_publicly,
)


@pytest.fixture
def made(tmp_path):
    """A base of BERT and an adapter of it."""
    tuned = tune(save_base(tmp_path / "base", "bert"))
    return adapter_of(tuned, tmp_path / "a.safetensors"), tmp_path / "base", tuned


def refused(source, to, tmp_path, said, **more):
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(InputError, match=said) as caught:
        convert_checkpoint(source, to, out=tmp_path / "out", **more)
    assert "\n" not in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == before


def test_an_unknown_form_is_named_with_the_nearest(made, tmp_path):
    refused(made[0], "merge", tmp_path, "unknown form 'merge': did you mean merged", base=made[1])


def test_an_adapter_without_or_with_another_base_is_refused(made, tmp_path):
    refused(made[0], "merged", tmp_path, "add --base")
    refused(made[0], "merged", tmp_path, "no folder", base=tmp_path / "none")
    weights = load_file(made[1] / "model.safetensors")
    weights["bert.pooler.dense.bias"][3] += 1e-6
    save_file(weights, made[1] / "model.safetensors", {"format": "pt"})
    refused(made[0], "merged", tmp_path, "frozen weights differ", base=made[1])


def test_an_adapter_trained_in_another_precision_than_the_file_s_is_accepted(tmp_path):
    base = save_base(tmp_path / "base", "bert", torch.float16)
    adapter = adapter_of(tune(base.float()), tmp_path / "a.safetensors")
    convert_checkpoint(adapter, "wrapped", out=tmp_path / "out", base=tmp_path / "base")
    state = load_file(tmp_path / "out" / "model.safetensors")
    assert state["classifier.linear.weight"].dtype == torch.float16
    assert state["classifier.propulsion"].dtype == torch.float32


def test_a_degree_is_asked_for_where_nobody_says_it_and_must_not_contradict(made, tmp_path):
    refused(made[0], "merged", tmp_path, "--degree 4: the source says", base=made[1], degree=4)
    convert_checkpoint(made[0], "wrapped", out=tmp_path / "w", base=made[1])
    for to in ("adapter", "merged"):
        refused(tmp_path / "w", to, tmp_path, "add --degree", base=made[1])
    refused(tmp_path / "w", "merged", tmp_path, "whole number", base=made[1], degree=0)


def test_vectors_that_are_not_finite_or_do_not_fit_are_refused(made, tmp_path):
    convert_checkpoint(made[0], "wrapped", out=tmp_path / "w", base=made[1])
    path = tmp_path / "w" / "model.safetensors"
    tensors = load_file(path)
    key = "bert.encoder.layer.0.attention.self.query.propulsion"
    for value, said in (
        (torch.full((16,), float("nan")), "query.propulsion' holds NaN"),
        (torch.ones(16, dtype=torch.int64), "whole values"),
        (torch.ones(15), r"shape \(15,\), but \S+query has 16"),
    ):
        save_file(tensors | {key: value}, path)
        refused(tmp_path / "w", "merged", tmp_path, said, degree=3)


def test_keys_and_weights_without_a_place_are_named(tmp_path):
    public = wrap_publicly(save_base(tmp_path / "base", "bert"), {"classifier"}, 2)
    state = {name: value.clone() for name, value in public.state_dict().items()}
    torch.save(state | {"extra.weight": torch.ones(2)}, tmp_path / "t.bin")
    refused(tmp_path / "t.bin", "merged", tmp_path, "'extra.weight'", base=tmp_path / "base")
    torch.save(state | {"nowhere.propulsion": torch.ones(2)}, tmp_path / "t.bin")
    refused(tmp_path / "t.bin", "merged", tmp_path, "'nowhere' is scaled", base=tmp_path / "base")
    table = {"bert.embeddings.position_ids": torch.arange(3)}
    torch.save(state | table, tmp_path / "t.bin")
    done = convert_checkpoint(
        tmp_path / "t.bin", "merged", out=tmp_path / "m", base=tmp_path / "base", degree=2
    )
    assert any("position_ids" in note for note in done.notes)


def test_what_holds_no_vectors_is_refused(made, tmp_path):
    refused(made[1], "adapter", tmp_path, "is a plain model: it holds no scaling vectors")
    refused(made[0], "adapter", tmp_path, "is a Propulsion adapter .* already", base=made[1])


def test_what_was_trained_shows_only_against_a_base(tmp_path):
    public = wrap_publicly(build("bert"), {"bert.encoder.layer.0.output.dense"}, 3)
    folder = save_public(public, tmp_path / "w")
    for to in ("adapter", "ia3"):
        refused(folder, to, tmp_path, "add --base", degree=3)


def test_a_trained_weight_of_the_body_does_not_fit_an_adapter(tmp_path):
    public = wrap_publicly(save_base(tmp_path / "base", "bert"), {"classifier"}, 2)
    with torch.no_grad():
        public.bert.encoder.layer[1].output.dense.weight[0, 0] += 1
    folder = save_public(public, tmp_path / "w")
    refused(
        folder, "adapter", tmp_path, r"bert\.encoder\.layer\.1\.output\.dense\.weight",
        base=tmp_path / "base", degree=2,
    )  # fmt: skip


@pytest.mark.parametrize("to", ["wrapped", "ia3", "adapter"])
def test_a_vector_behind_layer_norm_goes_into_no_layer_unless_it_is_ones(tmp_path, to):
    if to == "ia3":
        pytest.importorskip("peft", reason="peft is not installed")
    save_base(tmp_path / "base", "roberta")
    how = {"base": tmp_path / "base"}
    public = put_inside(load(build("roberta"), tmp_path / "base"), 2)
    move_vectors(public, only=QKV)
    with torch.no_grad():
        vector = public.roberta.encoder.layer[0].attention.output.propulsion_dense
        vector[3] = 1.1
    folder = save_public(public, tmp_path / "public", degree=2)
    refused(folder, to, tmp_path, r"layer\.0\.attention\.output\.LayerNorm: ", **how)
    with torch.no_grad():
        vector[3] = 1
    folder = save_public(public, tmp_path / "ones", degree=2)
    if to == "ia3":  # embeddings are all ones too, so that they may be left out
        done = convert_checkpoint(folder, to, out=tmp_path / "out", **how)
        from peft import PeftModel

        model = PeftModel.from_pretrained(load(build("roberta"), tmp_path / "base"), done.out)
        torch.testing.assert_close(logits(model.eval()), logits(public))
    else:
        done = convert_checkpoint(folder, to, out=tmp_path / "out", **how)
    assert any("vectors of ones" in note for note in done.notes)


def test_the_in_model_files_have_no_vector_everywhere_and_not_of_every_model(made, tmp_path):
    refused(
        made[0], "in-model", tmp_path, "RoBERTa and DeBERTa: there is none of bert", base=made[1]
    )
    for kind, said in (
        ("roberta", "dense.*after"),
        ("deberta", r"classifier.*no vector there"),
    ):
        folder = tmp_path / kind
        tuned = tune(save_base(folder, kind), positions=("mlp", "head"))
        adapter = adapter_of(tuned, folder / "a.safetensors")
        refused(adapter, "in-model", tmp_path, said, base=folder)


def test_the_public_wrapper_knows_no_conv1d(tmp_path):
    tuned = tune(save_base(tmp_path / "base", "gpt2"))
    adapter = adapter_of(tuned, tmp_path / "a.safetensors")
    refused(adapter, "wrapped", tmp_path, "c_attn .*not Conv1D", base=tmp_path / "base")


def test_several_vectors_without_their_pooling_are_refused(tmp_path):
    model = wrap(save_base(tmp_path / "base", "bert"), PropulsionConfig(vectors=2))
    save_file({n: t.clone() for n, t in model.state_dict().items()}, tmp_path / "t.safetensors")
    refused(
        tmp_path / "t.safetensors", "merged", tmp_path, "does not say how the several vectors",
        base=tmp_path / "base", degree=2,
    )  # fmt: skip
    assert scalings(model)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"),
        ('{"model_type": "bert"}', "architectures"),
        ('{"model_type": "bert", "architectures": ["NoSuch"]}', "'NoSuch'"),
        ('{"model_type": "bert", "architectures": ["pipeline"]}', "'pipeline'"),
        (
            '{"model_type": "bert", "architectures": ["BertModel"], "num_hidden_layers": 99999999}',
            "99999999, more than any model has",
        ),
        ('{"model_type": "nothing", "architectures": ["BertModel"]}', "makes no BertModel"),
    ],
)
def test_a_base_whose_configuration_is_of_no_known_model_is_refused(tmp_path, content, said):
    public = wrap_publicly(save_base(tmp_path / "base", "bert"), {"classifier"}, 2)
    torch.save(public.state_dict(), tmp_path / "t.bin")
    (tmp_path / "base" / "config.json").write_text(content)
    refused(tmp_path / "t.bin", "merged", tmp_path, said, base=tmp_path / "base", degree=2)


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
