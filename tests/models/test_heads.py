import pytest
import torch
from torch import nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.models import (
    base_prefix,
    head_modules,
    head_parameters,
    load_model,
    random_head,
)
from tests.tiny_folders import make_task, save_model

KINDS = ("bert", "distilbert", "roberta", "gpt2", "llama")


def test_head_is_what_lies_outside_the_base(tmp_path):
    folders = {kind: str(save_model(tmp_path / kind, kind)) for kind in KINDS}
    names = {kind: head_parameters(load_model(folders[kind], make_task()).model) for kind in KINDS}
    assert names["bert"] == ["classifier.weight", "classifier.bias"]
    assert names["distilbert"] == [
        f"{layer}.{part}"
        for layer in ("pre_classifier", "classifier")
        for part in ("weight", "bias")
    ]
    assert names["roberta"] == [
        f"classifier.{layer}.{part}"
        for layer in ("dense", "out_proj")
        for part in ("weight", "bias")
    ]
    assert names["llama"] == names["gpt2"] == ["score.weight"]


def test_model_that_does_not_name_its_base_has_no_prefix_and_its_last_linear_for_a_head():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.ReLU())
    with pytest.raises(InputError, match="does not tell its base from its head"):
        base_prefix(model)
    assert head_parameters(model) == ["1.weight", "1.bias"]


def test_random_head_is_seeded_has_the_configured_spread_and_spares_the_base():
    loaded = load_model("minilm", make_task(classes=3))
    before = {name: p.detach().clone() for name, p in loaded.model.named_parameters()}
    random_head(loaded.model, 5)
    after = {name: p.detach().clone() for name, p in loaded.model.named_parameters()}
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"classifier.weight"}
    assert after["classifier.weight"].std().item() == pytest.approx(0.02, rel=0.1)
    assert not after["classifier.bias"].any()
    random_head(loaded.model, 5)
    assert torch.equal(loaded.model.classifier.weight, after["classifier.weight"])


def test_the_pooler_belongs_to_the_head_s_modules_but_not_to_its_parameters(tmp_path):
    model = load_model(str(save_model(tmp_path)), make_task()).model
    assert head_modules(model) == {"bert.pooler.dense", "classifier"}
    assert not any("pooler" in name for name in head_parameters(model))
