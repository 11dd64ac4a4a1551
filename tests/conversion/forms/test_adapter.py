import json

import torch
from safetensors.torch import save_file

from ntk_propulsion.conversion import convert_checkpoint
from ntk_propulsion.propulsion import load_adapter
from tests.conversion.models import (
    assert_same,
    build,
    content,
    load,
    logits,
    move_vectors,
    refused,
    save_base,
    save_public,
    tune,
    wrap_publicly,
)


def test_the_adapter_of_a_conversion_holds_no_more_than_what_changed(tmp_path):
    model = save_base(tmp_path / "base", "bert")
    public = wrap_publicly(model, {"bert.encoder.layer.0.attention.self.query"}, 4)
    move_vectors(public)
    with torch.no_grad():
        public.classifier.bias += 1
    folder = save_public(public, tmp_path / "wrapped")
    out = tmp_path / "a.safetensors"
    convert_checkpoint(folder, "adapter", out=out, base=tmp_path / "base", degree=4)
    metadata, tensors = content(out)
    settings = json.loads(metadata["config"])
    assert settings["positions"] == ["bert.encoder.layer.0.attention.self.query"]
    assert (settings["biases"], settings["train_head"]) == ("all", False)
    assert "classifier.weight" not in tensors
    loaded = load_adapter(load(build("bert"), tmp_path / "base"), out)
    assert_same(logits(loaded), logits(public), 1e-5)


def test_a_head_that_the_base_lacks_goes_into_the_adapter(tmp_path):
    model = build("roberta").float()
    model.roberta.save_pretrained(tmp_path / "base")
    public = wrap_publicly(model, {"roberta.encoder.layer.1.attention.self.value"}, 2)
    move_vectors(public)
    folder = save_public(public, tmp_path / "wrapped")
    out = tmp_path / "a.safetensors"
    convert_checkpoint(folder, "adapter", out=out, base=tmp_path / "base", degree=2)
    plain = type(model).from_pretrained(tmp_path / "base").eval()
    assert_same(logits(load_adapter(plain, out)), logits(public), 1e-5)


def test_our_wrapped_state_dict_converts_when_the_degree_is_given(tmp_path):
    tuned = tune(save_base(tmp_path / "base", "bert"), degree=7)
    save_file({n: t.clone() for n, t in tuned.state_dict().items()}, tmp_path / "t.safetensors")
    out = tmp_path / "a.safetensors"
    base = tmp_path / "base"
    convert_checkpoint(tmp_path / "t.safetensors", "adapter", out=out, base=base, degree=7)
    assert torch.equal(logits(load_adapter(load(build("bert"), base), out)), logits(tuned))


def test_a_trained_weight_of_the_body_does_not_fit_an_adapter(tmp_path):
    public = wrap_publicly(save_base(tmp_path / "base", "bert"), {"classifier"}, 2)
    with torch.no_grad():
        public.bert.encoder.layer[1].output.dense.weight[0, 0] += 1
    folder = save_public(public, tmp_path / "w")
    refused(
        folder, "adapter", tmp_path, r"bert\.encoder\.layer\.1\.output\.dense\.weight",
        base=tmp_path / "base", degree=2,
    )  # fmt: skip
