import dataclasses
import json

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from ntk_propulsion.errors import InputError
from ntk_propulsion.propulsion import (
    PropulsionConfig,
    is_wrapped,
    load_adapter,
    save_adapter,
    scalings,
    wrap,
)
from ntk_propulsion.propulsion.wrap import plain_parameters, wrapping

CONFIG = PropulsionConfig(7, ("encoder", "head"), 1.0, "scaled", train_head=True)
POOLED = PropulsionConfig(7, ("encoder", "head"), vectors=3, pooling="max", ties="even")


def trained(model, randomise, config=CONFIG):
    wrap(model, config)
    randomise(scalings(model))
    parameters = plain_parameters(model)
    with torch.no_grad():
        for name in wrapping(model).trained:
            parameters[name].add_(0.1)
    return model


@pytest.fixture
def path(tmp_path, build, randomise):
    save_adapter(trained(build("bert"), randomise), tmp_path / "adapter.safetensors")
    return tmp_path / "adapter.safetensors"


def rewrite(path, change_tensors=None, **metadata):
    with safe_open(path, "pt") as file:
        old = file.metadata()
    tensors = safetensors.torch.load_file(path)
    if change_tensors:
        change_tensors(tensors)
    safetensors.torch.save_file(tensors, path, {**old, **metadata})


@pytest.mark.parametrize("name", ["bert", "albert", "gpt2-lm", "t5"])
@pytest.mark.parametrize("config", [PropulsionConfig(), CONFIG, POOLED])
def test_an_adapter_brings_the_trained_model_back(name, config, build, randomise, logits, tmp_path):
    model = trained(build(name), randomise, config)
    save_adapter(model, tmp_path / "a.safetensors")
    # A head that trained is in the file, so the base may have any other.
    loaded = load_adapter(build(name), tmp_path / "a.safetensors")
    assert torch.equal(logits(loaded), logits(model))
    assert wrapping(loaded) == wrapping(model)


def test_an_adapter_is_small_and_describes_itself(path):
    with safe_open(path, "pt") as file:
        names, metadata = set(file.keys()), file.metadata()
    assert "bert.encoder.layer.0.attention.self.query.z" in names
    assert {"classifier.weight", "classifier.bias"} <= names
    assert "bert.encoder.layer.0.attention.self.query.weight" not in names
    settings = json.loads(metadata["config"])
    assert settings["degree"] == 7
    assert settings["positions"] == ["encoder", "head"]
    assert metadata["version"] == "1"
    assert len(metadata["base"]) == 64


def test_an_adapter_of_several_vectors_holds_and_names_them(tmp_path, bert, randomise):
    save_adapter(trained(bert, randomise, POOLED), tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        z = file.get_tensor("bert.encoder.layer.0.intermediate.dense.z")
        settings = json.loads(file.metadata()["config"])
    assert torch.equal(z, scalings(bert)["bert.encoder.layer.0.intermediate.dense"].z)
    assert z.shape == (3, 32)
    assert (settings["vectors"], settings["pooling"], settings["ties"]) == (3, "max", "even")


def test_an_adapter_of_one_vector_is_laid_out_as_before_there_was_pooling(path):
    with safe_open(path, "pt") as file:
        settings, metadata = json.loads(file.metadata()["config"]), file.metadata()
    tensors = safetensors.torch.load_file(path)
    assert {value.ndim for name, value in tensors.items() if name.endswith(".z")} == {1}
    assert metadata.keys() == {"format", "version", "config", "base", "base_class"}
    assert settings == {
        "degree": 7,
        "positions": ["encoder", "head"],
        "initialisation": 1.0,
        "biases": "scaled",
        "train_head": True,
    }


@pytest.mark.parametrize("other", [{"vectors": 2}, {"pooling": "min"}, {"ties": "first"}])
def test_an_adapter_of_another_pooling_is_refused(tmp_path, build, randomise, other):
    save_adapter(trained(build("bert"), randomise, POOLED), tmp_path / "a.safetensors")
    model = wrap(build("bert"), dataclasses.replace(POOLED, **other))
    with pytest.raises(InputError, match="other settings"):
        load_adapter(model, tmp_path / "a.safetensors")


def test_an_adapter_loads_into_a_model_wrapped_alike(path, bert):
    wrap(bert, CONFIG)
    load_adapter(bert, path)
    assert not torch.equal(bert.classifier.scaling.z, torch.ones_like(bert.classifier.scaling.z))


def test_a_model_wrapped_otherwise_is_refused(path, bert):
    wrap(bert)
    with pytest.raises(InputError, match="other settings"):
        load_adapter(bert, path)


def test_another_base_is_refused_and_left_plain(path, bert):
    with torch.no_grad():
        bert.bert.embeddings.LayerNorm.weight[3] += 1e-12
    bert.bert.embeddings.LayerNorm.weight.requires_grad_(False)
    with pytest.raises(InputError, match="another BertForSequenceClassification"):
        load_adapter(bert, path)
    assert not is_wrapped(bert)
    flags = {name: parameter.requires_grad for name, parameter in bert.named_parameters()}
    assert [name for name, flag in flags.items() if not flag] == [
        "bert.embeddings.LayerNorm.weight"
    ]


def test_a_fresh_head_counts_as_another_base_unless_it_was_trained(
    bert, build, randomise, tmp_path
):
    frozen = PropulsionConfig(positions=("encoder",))
    save_adapter(trained(build("bert"), randomise, frozen), tmp_path / "a.safetensors")
    with torch.no_grad():
        bert.classifier.weight.add_(1)
    with pytest.raises(InputError, match="a head made afresh counts"):
        load_adapter(bert, tmp_path / "a.safetensors")
    with_head = PropulsionConfig(positions=("encoder",), train_head=True)
    save_adapter(trained(build("bert"), randomise, with_head), tmp_path / "a.safetensors")
    load_adapter(bert, tmp_path / "a.safetensors")


def test_a_truncated_file_is_refused(path, bert):
    for size in (4, 200, path.stat().st_size - 1):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(InputError, match="not a whole safetensors file"):
            load_adapter(bert, path)
        assert not is_wrapped(bert)


def test_a_missing_file_or_a_folder_is_refused(tmp_path, bert):
    with pytest.raises(InputError, match="no adapter at"):
        load_adapter(bert, tmp_path / "none.safetensors")
    with pytest.raises(InputError, match=r"."):
        load_adapter(bert, tmp_path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"format": "other"}, "not a Propulsion adapter"),
        ({"version": "9"}, "version '9', not '1'"),
        ({"config": "{"}, "no readable configuration"),
        ({"config": "[]"}, "no readable configuration"),
        ({"config": '{"positions": 3}'}, "no readable configuration"),
        ({"config": '{"degree": 0}'}, "degree 0"),
        ({"config": '{"new": 0}'}, "unknown setting"),
    ],
)
def test_metadata_that_do_not_fit_are_refused(path, bert, metadata, message):
    rewrite(path, **metadata)
    with pytest.raises(InputError, match=message):
        load_adapter(bert, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("classifier.z"), r"lacks classifier\.z"),
        (lambda t: t.update(extra=torch.ones(2)), "holds extra"),
        (
            lambda t: t.update({"classifier.z": torch.ones(3)}),
            r"shape \(3,\), the model needs \(2,\)",
        ),
        (lambda t: t["classifier.z"].fill_(torch.nan), "NaN"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_before_any_is_loaded(path, bert, change, message):
    before = {name: value.clone() for name, value in bert.state_dict().items()}
    rewrite(path, change)
    with pytest.raises(InputError, match=message):
        load_adapter(bert, path)
    assert not is_wrapped(bert)
    assert all(torch.equal(value, before[name]) for name, value in bert.state_dict().items())


def test_a_failed_save_keeps_the_old_file(path, bert, monkeypatch):
    old = path.read_bytes()
    wrap(bert)

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_adapter(bert, path)
    assert path.read_bytes() == old
    assert list(path.parent.iterdir()) == [path]


def test_a_missing_folder_is_made(bert, tmp_path):
    save_adapter(wrap(bert), tmp_path / "new" / "a.safetensors")
    assert (tmp_path / "new" / "a.safetensors").is_file()


def test_a_plain_model_has_no_adapter(bert, tmp_path):
    with pytest.raises(InputError, match="not wrapped"):
        save_adapter(bert, tmp_path / "a.safetensors")
