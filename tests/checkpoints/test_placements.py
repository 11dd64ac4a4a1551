from torch import nn

from ntk_propulsion.checkpoints import describe_dialect
from tests.checkpoints.public import in_model_state, saved


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


def test_without_a_family_dense_vectors_may_scale_either_place():
    dialect = describe_dialect(["layer.0.output.propulsion_dense"])
    assert dialect.scalings["layer.0.output.dense"].placement.exact is None
    assert any("may not" in note for note in dialect.notes)
