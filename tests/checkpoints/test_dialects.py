import json
from collections import Counter

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ntk_propulsion.checkpoints import align, describe_dialect, open_checkpoint, recognise
from ntk_propulsion.errors import InputError
from ntk_propulsion.models.loading import load_model
from ntk_propulsion.propulsion import PropulsionConfig, save_adapter, scalings, wrap
from ntk_propulsion.propulsion.wrap import wrapping
from ntk_propulsion.runs.quiet import quiet
from ntk_propulsion.training.finetuning import finetune
from tests.propulsion.conftest import build
from tests.tiny_folders import make_task, save_model


class PublicLayer(nn.Module):
    """A Linear or Embedding with its vector, under the names of the public code."""

    def __init__(self, layer):
        super().__init__()
        kind = "embeddings" if isinstance(layer, nn.Embedding) else "linear"
        setattr(self, kind, layer)
        self.propulsion = nn.Parameter(layer.weight.new_ones(layer.weight.shape[kind != "linear"]))


def wrap_publicly(model):
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear | nn.Embedding) and not isinstance(parent, PublicLayer):
                setattr(parent, name, PublicLayer(child))
    return model


def layers(model):
    return {n for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Embedding)}


def in_model_state(kind, *, vectors=None):
    """The keys of a tiny model with those that the public model files add."""
    model = build(kind)
    state = dict(model.state_dict())
    deberta = kind == "deberta"

    def add(key, size):
        for index in range(vectors or 1):
            state[f"{key}.{index}" if vectors else key] = torch.ones(size)

    for name in list(model.state_dict()):
        module, _, attribute = name.rpartition(".")
        parent, _, leaf = module.rpartition(".")
        if attribute != "weight":
            continue
        if leaf.removesuffix("_proj") in ("query", "key", "value"):
            add(f"{parent}.propulsion_{leaf.removesuffix('_proj')}", 16)
        elif leaf == "dense" and (deberta or not parent.startswith("classifier")):
            add(f"{parent}.propulsion_dense", state[name].shape[0])
        elif leaf == "word_embeddings":
            add(f"{parent}.propulsion_embed_tokens", 16)
        elif leaf == "position_embeddings":
            add(f"{parent}.propulsion_embed_pos", 16)
        elif leaf == "token_type_embeddings":
            add(f"{parent}.propulsion_embed_tok", 16)
        elif leaf == "rel_embeddings":
            add(f"{parent}.propulsion_rel_embeddings", 16)
        elif leaf == "decoder":
            add(f"{parent}.propulsion_decoder", 50)
    return model, state


def saved(tmp_path, state, **config):
    tensors = {name: tensor.clone().contiguous() for name, tensor in state.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    return recognise(open_checkpoint(tmp_path))


def test_a_plain_model_is_base_weights_and_a_head():
    model = build("roberta")
    dialect = describe_dialect(model.state_dict())
    assert dialect.name == "plain"
    assert set(dialect.roles.values()) == {"base weight", "head"}
    assert all(n.startswith("classifier") == (r == "head") for n, r in dialect.roles.items())
    assert dialect.plain == {name: name for name in model.state_dict()}


@pytest.mark.parametrize("kind", ["bert", "gpt2", "albert", "deberta"])
def test_our_wrapped_state_dict_maps_to_the_plain_model_s(kind):
    plain = set(build(kind).state_dict())
    model = wrap(build(kind))
    dialect = describe_dialect(model.state_dict())
    assert dialect.name == "ours"
    assert set(dialect.scalings) == set(scalings(model))
    assert set(dialect.plain.values()) == plain
    assert all(vector.placement.exact for vector in dialect.scalings.values())
    assert set(dialect.roles) == set(model.state_dict())
    assert not dialect.unknown
    assert dialect.degree is None


def test_our_adapter_file_says_its_degree_and_what_was_trained(tmp_path):
    model = wrap(build("bert"), PropulsionConfig(degree=7, biases="scaled", train_head=True))
    save_adapter(model, tmp_path / "a.safetensors")
    dialect = recognise(open_checkpoint(tmp_path / "a.safetensors"))
    assert (dialect.name, dialect.degree, dialect.pooling) == ("adapter", 7, None)
    assert set(dialect.scalings) == set(scalings(model))
    roles = Counter(dialect.roles.values())
    assert roles["scaling vector"] == len(dialect.scalings)
    assert roles["trained bias"] > 0
    assert {key for key, role in dialect.roles.items() if role == "head"} >= {"classifier.weight"}
    assert not dialect.unknown


def test_our_adapter_file_says_how_several_vectors_are_pooled(tmp_path):
    model = wrap(build("bert"), PropulsionConfig(vectors=3, pooling="max"))
    save_adapter(model, tmp_path / "a.safetensors")
    checkpoint = open_checkpoint(tmp_path / "a.safetensors")
    dialect = recognise(checkpoint)
    assert dialect.pooling == "max"
    assert {len(checkpoint[vector.keys[0]].shape) for vector in dialect.scalings.values()} == {2}


@pytest.mark.parametrize(
    "metadata",
    [{}, {"config": "{"}, {"config": "[]"}, {"config": '{"degree": -1}'}, {"config": "[" * 9999}],
)
def test_an_adapter_without_a_usable_configuration_is_refused(metadata):
    metadata = {"format": "ntk_propulsion.adapter", "version": "1", **metadata}
    with pytest.raises(InputError, match="readable configuration"):
        describe_dialect(["a.z"], metadata=metadata)
    with pytest.raises(InputError, match="version"):
        describe_dialect(["a.z"], metadata=metadata | {"version": "9"})


@pytest.mark.parametrize("kind", ["bert", "roberta", "llama", "bart"])
def test_the_public_wrapped_dialect_maps_to_the_plain_model(kind):
    model = build(kind)
    names, places = set(model.state_dict()), layers(model)
    state = wrap_publicly(model).state_dict()
    dialect = describe_dialect(state)
    assert dialect.name == "wrapped"
    assert set(dialect.scalings) == places
    assert set(dialect.plain.values()) == names
    assert set(dialect.roles) == set(state)
    assert not dialect.unknown
    assert dialect.degree is None
    kinds = {v.placement.words for v in dialect.scalings.values()}
    assert kinds == {"output of the Linear", "output of the Embedding"}


def test_the_public_vectors_alone_are_recognised_too():
    state = wrap_publicly(build("bert")).state_dict()
    dialect = describe_dialect([name for name in state if name.endswith(".propulsion")])
    assert set(dialect.scalings) == layers(build("bert"))
    assert any("without weights" in note for note in dialect.notes)


def test_roberta_s_in_model_vectors_scale_layers_only_in_attention_and_embeddings(tmp_path):
    model, state = in_model_state("roberta-mlm")
    dialect = saved(tmp_path, state, model_type="roberta", degree=15)
    assert dialect.name == "in-model"
    assert dialect.degree == 15
    assert not dialect.unknown
    modules = dict(model.named_modules())
    for name, vector in dialect.scalings.items():
        assert isinstance(modules[name], nn.Linear | nn.Embedding | nn.LayerNorm), name
        first = name.rpartition(".")[2]
        exact = first in ("query", "key", "value", "decoder") or first.endswith("embeddings")
        assert vector.placement.exact is exact, name
    attention = dialect.scalings["roberta.encoder.layer.0.attention.output.LayerNorm"]
    assert attention.keys == ("roberta.encoder.layer.0.attention.output.propulsion_dense",)
    assert attention.placement.words == "after residual and LayerNorm"
    gelu = dialect.scalings["roberta.encoder.layer.1.intermediate.dense"]
    assert gelu.placement.words == "after the activation"
    assert any("do not scale a layer's output" in note for note in dialect.notes)


def test_deberta_s_in_model_vectors_scale_layers(tmp_path):
    model, state = in_model_state("deberta")
    dialect = saved(tmp_path, state, model_type="deberta-v2")
    assert not dialect.unknown
    assert dialect.degree is None
    inexact = [name for name, v in dialect.scalings.items() if not v.placement.exact]
    assert inexact == ["deberta.encoder.rel_embeddings"]
    modules = dict(model.named_modules())
    for name, vector in dialect.scalings.items():
        assert modules[name].weight.shape[isinstance(modules[name], nn.Embedding)] == len(
            state[vector.keys[0]]
        )
    assert "deberta.encoder.layer.0.output.dense" in dialect.scalings


def test_several_in_model_vectors_of_a_layer_are_one_place_with_a_product():
    _, state = in_model_state("deberta", vectors=12)
    dialect = describe_dialect(state)
    assert dialect.pooling == "product"
    query = dialect.scalings["deberta.encoder.layer.0.attention.self.query_proj"]
    stem = "deberta.encoder.layer.0.attention.self.propulsion_query"
    assert query.keys == tuple(f"{stem}.{i}" for i in range(12))


def test_without_a_family_dense_vectors_may_scale_either_place():
    dialect = describe_dialect(["layer.0.output.propulsion_dense"])
    assert dialect.scalings["layer.0.output.dense"].placement.exact is None
    assert any("may not" in note for note in dialect.notes)


def test_in_model_keys_that_the_public_files_do_not_have_are_unknown():
    names = ["roberta.x.propulsion_unheard", "roberta.y.propulsion_dense", "roberta.x.weight"]
    assert describe_dialect(names).unknown == tuple(names[:2])


@pytest.mark.parametrize("degree", [0, -3, 1.5, True, "15", None, float("nan"), [15]])
def test_a_degree_that_cannot_be_one_is_unknown(degree):
    names = ["roberta.encoder.layer.0.attention.self.propulsion_query"]
    assert describe_dialect(names, config={"degree": degree}).degree is None


@pytest.mark.parametrize(
    "names",
    [
        ["a.propulsion", "b.scaling.z"],
        ["a.propulsion", "roberta.b.propulsion_query"],
        ["a.lora_A.weight", "b.scaling.z"],
    ],
)
def test_a_mixture_of_dialects_is_refused(names):
    with pytest.raises(InputError, match="mixes two dialects"):
        describe_dialect(names)


def peft_configs():
    import peft

    kinds = {
        "lora": peft.LoraConfig(r=2, target_modules=["query", "value"], bias="all"),
        "dora": peft.LoraConfig(r=2, target_modules=["query"], use_dora=True),
        "embedding": peft.LoraConfig(r=2, target_modules=["word_embeddings"]),
        "ia3": peft.IA3Config(
            target_modules=["key", "output.dense"], feedforward_modules=["output.dense"]
        ),
        "adalora": peft.AdaLoraConfig(init_r=2, target_modules=["query"], total_step=10),
        "vera": peft.VeraConfig(r=2, target_modules=["query"]),
        "oft": peft.OFTConfig(oft_block_size=4, r=0, target_modules=["query"]),
    }
    for config in kinds.values():
        config.task_type = "SEQ_CLS"
    return kinds


@pytest.mark.parametrize("kind", ["lora", "dora", "embedding", "ia3", "adalora", "vera", "oft"])
def test_a_peft_adapter_is_recognised_and_every_key_accounted_for(tmp_path, kind):
    peft = pytest.importorskip("peft")
    config = peft_configs()[kind]
    plain = set(build("bert").state_dict())
    model = peft.get_peft_model(build("bert"), config)
    with quiet():
        model.save_pretrained(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    dialect = recognise(checkpoint)
    assert (dialect.name, dialect.peft_type) == ("peft", config.peft_type.value)
    assert set(dialect.roles) == set(checkpoint)
    assert not dialect.unknown
    assert {"classifier.weight", "classifier.bias"} <= set(dialect.plain.values()) <= plain
    targets = {name for name, m in build("bert").named_modules() if not list(m.children())}
    shared = {name for name in dialect.factors if name in ("base_model", "")}
    assert dialect.factors.keys() - shared
    assert dialect.factors.keys() - shared <= targets
    assert ("trained bias" in dialect.roles.values()) == (kind == "lora")

    whole = describe_dialect(model.state_dict())
    assert not whole.unknown
    assert set(whole.plain.values()) == plain
    assert whole.factors.keys() - shared == dialect.factors.keys() - shared


def test_our_training_s_checkpoint_holds_what_was_trained(tmp_path):
    task = make_task(n=16)
    loaded = load_model(str(save_model(tmp_path / "base")), task)
    wrap(loaded.model, PropulsionConfig(degree=3, train_head=True))
    finetune(loaded, task, task.train, steps=2, learning_rate=1e-3, output_dir=tmp_path / "run")
    with pytest.raises(InputError, match="checkpoint-2"):
        open_checkpoint(tmp_path / "run")
    dialect = recognise(open_checkpoint(tmp_path / "run" / "checkpoint-2"))
    assert dialect.name == "ours"
    assert set(dialect.scalings) == set(scalings(loaded.model))
    assert set(dialect.plain.values()) == set(wrapping(loaded.model).trained)
    assert dialect.roles["classifier.base.weight"] == "head"
    assert set(dialect.roles.values()) == {"scaling vector", "head"}


def test_trained_parameters_of_a_plain_model_are_told_from_its_weights(tmp_path):
    save_file(
        {"x.dense.bias": torch.ones(2), "classifier.weight": torch.ones(2)},
        tmp_path / "trained.safetensors",
    )
    dialect = recognise(open_checkpoint(tmp_path))
    assert dialect.name == "trained"
    assert dialect.roles == {"x.dense.bias": "trained bias", "classifier.weight": "head"}


@pytest.mark.parametrize("prefix", ["", "module."])
def test_plain_names_align_with_the_base_s(prefix):
    base = list(build("bert").state_dict())
    wrapped = wrap_publicly(build("bert")).state_dict()
    dialect = describe_dialect([prefix + name for name in wrapped])
    aligned = align(dialect.plain.values(), base)
    assert aligned.tuned_prefix == prefix
    assert set(aligned.pairs.values()) == set(base)
