import pytest
import torch
import transformers as hf
from torch import nn
from torch.nn.utils import parametrizations

from ntk_propulsion.errors import InputError
from ntk_propulsion.models.roles import (
    ROLES,
    every_role,
    is_mlp_output,
    is_norm,
    module_roles,
    role_of,
    select,
)

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 50,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
}
NO_MLP_SIZE = {name: size for name, size in SIZES.items() if name != "intermediate_size"}
GPT = {"vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
ENCODER_DECODER = GPT | {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
}


def roles(embedding=0, q=0, k=0, v=0, qkv=0, out=0, mlp=0, head=0, other=0):
    return {
        "embedding": embedding,
        "query": q,
        "key": k,
        "value": v,
        "qkv": qkv,
        "attention_output": out,
        "mlp": mlp,
        "head": head,
        "other": other,
    }


BERT_BLOCKS = {"q": 2, "k": 2, "v": 2, "out": 2, "mlp": 4}
GATED_BLOCKS = BERT_BLOCKS | {"mlp": 6}
FUSED_BLOCKS = {"qkv": 2, "out": 2, "mlp": 4}

# Each role's number of layers at 2 blocks, from the architectures' descriptions.
ARCHITECTURES = {
    "bert": (
        lambda: hf.BertForSequenceClassification(hf.BertConfig(**SIZES)),
        roles(embedding=3, head=2, **BERT_BLOCKS),
    ),
    "bert-mlm": (
        lambda: hf.BertForMaskedLM(hf.BertConfig(**SIZES)),
        roles(embedding=3, head=2, **BERT_BLOCKS),
    ),
    "roberta": (
        lambda: hf.RobertaForSequenceClassification(hf.RobertaConfig(**SIZES)),
        roles(embedding=3, head=2, **BERT_BLOCKS),
    ),
    "roberta-qa": (
        lambda: hf.RobertaForQuestionAnswering(hf.RobertaConfig(**SIZES)),
        roles(embedding=3, head=1, **BERT_BLOCKS),
    ),
    "distilbert": (
        lambda: hf.DistilBertForSequenceClassification(
            hf.DistilBertConfig(dim=16, n_layers=2, n_heads=2, hidden_dim=32, vocab_size=50)
        ),
        roles(embedding=2, head=2, **BERT_BLOCKS),
    ),
    "albert": (
        lambda: hf.AlbertForSequenceClassification(hf.AlbertConfig(embedding_size=8, **SIZES)),
        roles(embedding=3, q=1, k=1, v=1, out=1, mlp=2, head=2, other=1),
    ),
    "electra": (
        lambda: hf.ElectraForPreTraining(hf.ElectraConfig(embedding_size=8, **SIZES)),
        roles(embedding=3, head=2, other=1, **BERT_BLOCKS),
    ),
    "mpnet": (
        lambda: hf.MPNetForSequenceClassification(hf.MPNetConfig(**SIZES)),
        roles(embedding=2, head=2, other=1, **BERT_BLOCKS),
    ),
    "modernbert": (
        lambda: hf.ModernBertForSequenceClassification(hf.ModernBertConfig(**SIZES)),
        roles(embedding=1, head=2, **FUSED_BLOCKS),
    ),
    "deberta-v2": (
        lambda: hf.DebertaV2ForSequenceClassification(
            hf.DebertaV2Config(
                relative_attention=True, share_att_key=True, pos_att_type=["p2c", "c2p"], **SIZES
            )
        ),
        roles(embedding=2, head=2, other=1, **BERT_BLOCKS),
    ),
    "gpt2": (
        lambda: hf.GPT2ForSequenceClassification(
            hf.GPT2Config(n_embd=16, n_layer=2, n_head=2, **GPT)
        ),
        roles(embedding=2, head=1, **FUSED_BLOCKS),
    ),
    "opt": (
        lambda: hf.OPTForSequenceClassification(
            hf.OPTConfig(ffn_dim=32, word_embed_proj_dim=8, **NO_MLP_SIZE)
        ),
        roles(embedding=2, head=1, other=2, **BERT_BLOCKS),
    ),
    "bloom": (
        lambda: hf.BloomForSequenceClassification(
            hf.BloomConfig(hidden_size=16, n_layer=2, n_head=2, **GPT)
        ),
        roles(embedding=1, head=1, **FUSED_BLOCKS),
    ),
    "falcon": (
        lambda: hf.FalconForSequenceClassification(hf.FalconConfig(**NO_MLP_SIZE)),
        roles(embedding=1, head=1, **FUSED_BLOCKS),
    ),
    "phi": (
        lambda: hf.PhiForSequenceClassification(hf.PhiConfig(**SIZES)),
        roles(embedding=1, head=1, **BERT_BLOCKS),
    ),
    "llama": (
        lambda: hf.LlamaForSequenceClassification(hf.LlamaConfig(**SIZES)),
        roles(embedding=1, head=1, **GATED_BLOCKS),
    ),
    "mistral": (
        lambda: hf.MistralForCausalLM(hf.MistralConfig(num_key_value_heads=1, **SIZES)),
        roles(embedding=1, head=1, **GATED_BLOCKS),
    ),
    "qwen2": (
        lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(num_key_value_heads=1, **SIZES)),
        roles(embedding=1, head=1, **GATED_BLOCKS),
    ),
    "gemma": (
        lambda: hf.GemmaForCausalLM(hf.GemmaConfig(num_key_value_heads=1, head_dim=8, **SIZES)),
        roles(embedding=1, head=1, **GATED_BLOCKS),
    ),
    "bart": (
        lambda: hf.BartForSequenceClassification(hf.BartConfig(**ENCODER_DECODER)),
        roles(embedding=5, q=6, k=6, v=6, out=6, mlp=8, head=2),
    ),
    "t5": (
        lambda: hf.T5ForConditionalGeneration(
            hf.T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, **GPT)
        ),
        roles(embedding=3, q=6, k=6, v=6, out=6, mlp=8, head=1, other=2),
    ),
    "t5-gated": (
        lambda: hf.T5EncoderModel(
            hf.T5Config(
                d_model=16,
                d_kv=8,
                d_ff=32,
                num_layers=2,
                num_heads=2,
                feed_forward_proj="gated-gelu",
                **GPT,
            )
        ),
        roles(embedding=2, other=1, **GATED_BLOCKS),
    ),
    "vit": (
        lambda: hf.ViTForImageClassification(
            hf.ViTConfig(
                image_size=8,
                patch_size=4,
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=32,
            )
        ),
        roles(head=1, **BERT_BLOCKS),
    ),
}


def build(name):
    with torch.device("meta"):
        return ARCHITECTURES[name][0]()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_layer_of_an_architecture_has_its_role(name):
    found = list(module_roles(build(name)).values())
    expected = ARCHITECTURES[name][1]
    assert {role: found.count(role) for role in expected} == expected
    assert len(found) == sum(expected.values())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_mlp_outputs_are_the_layers_from_the_inner_to_the_hidden_size(name):
    model = build(name)
    modules = dict(model.named_modules())
    mlps = [layer for layer, role in module_roles(model).items() if role == "mlp"]
    for layer in mlps:
        weight = modules[layer].weight
        sizes = weight.shape if isinstance(modules[layer], nn.Linear) else weight.shape[::-1]
        assert is_mlp_output(layer) == (sizes[0] == 16), layer
    outputs = [is_mlp_output(layer) for layer in mlps]
    assert 0 < sum(outputs) < len(mlps)


def test_a_layer_keeps_its_role_when_something_wraps_it():
    assert role_of("bert.encoder.layer.0.attention.self.query.base_layer") == "query"
    assert role_of("bert.encoder.layer.0.output.dense.base") == "mlp"
    assert is_mlp_output("bert.encoder.layer.0.output.dense.base")


def test_a_plain_network_has_only_other_layers():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    assert module_roles(model) == {"0": "other", "2": "other"}
    assert select(model) == {"0": "other", "2": "other"}


def test_all_takes_every_called_layer_in_model_order():
    model = build("gpt2")
    assert list(select(model)) == list(module_roles(model))


def test_encoder_leaves_embeddings_heads_and_other_layers_out():
    assert set(select(build("mpnet"), "encoder").values()) == {
        "query",
        "key",
        "value",
        "attention_output",
        "mlp",
    }


@pytest.mark.parametrize("role", ROLES)
def test_a_role_selects_its_layers_only(role):
    model = build("roberta")
    expected = [name for name, found in module_roles(model).items() if found == role]
    assert list(select(model, role)) == expected


def test_a_pattern_and_a_role_select_together_in_model_order():
    chosen = select(build("bert"), ["classifier", "*.layer.1.*.query", "key"])
    assert list(chosen) == [
        "bert.encoder.layer.0.attention.self.key",
        "bert.encoder.layer.1.attention.self.query",
        "bert.encoder.layer.1.attention.self.key",
        "classifier",
    ]


def test_a_fused_projection_needs_query_key_and_value_together():
    model = build("gpt2")
    assert list(select(model, ["value", "key", "query"])) == [
        "transformer.h.0.attn.c_attn",
        "transformer.h.1.attn.c_attn",
    ]
    with pytest.raises(InputError, match=r"h\.0\.attn\.c_attn .* not key and query alone"):
        select(model, ["query", "key"])
    with pytest.raises(InputError, match=r"c_attn"):
        select(model, ["value", "mlp"])
    assert "transformer.h.0.attn.c_attn" in select(model, "encoder")


def test_an_unknown_position_names_the_near_one():
    with pytest.raises(InputError, match=r"unknown position 'embeding': did you mean embedding"):
        select(build("bert"), "embeding")


def test_a_pattern_without_a_match_shows_what_names_look_like():
    with pytest.raises(InputError, match=r"no layer's name matches '\*.layer.7.\*'; .*word_embed"):
        select(build("bert"), ["head", "*.layer.7.*"])


@pytest.mark.parametrize("positions", ["query", ["head", "embedding"], []])
def test_a_selection_without_layers_is_an_error(positions):
    with pytest.raises(InputError, match="select nothing"):
        select(nn.Sequential(nn.Linear(2, 2)), positions)


def test_a_model_without_layers_is_an_error():
    with pytest.raises(InputError, match="no Linear"):
        select(nn.LayerNorm(3))


def test_a_module_under_two_names_counts_once():
    shared = nn.Linear(3, 3)
    assert select(nn.Sequential(shared, nn.ReLU(), shared)) == {"0": "other"}


def test_layers_whose_weights_the_parent_reads_are_never_selected():
    attention = nn.Sequential(nn.MultiheadAttention(4, 2), nn.Linear(4, 4))
    assert list(select(attention)) == ["1"]
    deberta = build("deberta-v2")
    assert "deberta.encoder.rel_embeddings" in module_roles(deberta)
    assert "deberta.encoder.rel_embeddings" not in select(deberta)


def test_an_embedding_that_only_shares_its_weight_is_not_selected():
    assert list(select(build("t5"), "embedding")) == [
        "encoder.embed_tokens",
        "decoder.embed_tokens",
    ]


def test_an_embedding_called_shared_is_selected_where_it_is_the_only_one():
    model = nn.ModuleDict({"shared": nn.Embedding(5, 3)})
    assert select(model, "embedding") == {"shared": "embedding"}


def test_a_norm_is_what_its_class_or_its_name_calls_one():
    norms = (nn.LayerNorm(3), nn.RMSNorm(3), nn.BatchNorm1d(3), nn.GroupNorm(1, 3))
    assert all(is_norm(module) for module in norms)
    assert is_norm("bert.encoder.layer.0.output.LayerNorm")
    assert not is_norm("encoder.norm_first.dense")
    assert not is_norm(nn.Linear(3, 3))


def test_every_module_has_a_role_and_norms_their_own():
    model = build("bert")
    roles = every_role(model)
    assert list(roles) == [name for name, _ in model.named_modules()]
    assert roles["bert.embeddings.LayerNorm"] == "norm"
    assert roles["dropout"] == "other"
    assert {name: roles[name] for name in module_roles(model)} == module_roles(model)


class Packed(nn.Embedding):
    """An embedding whose table is no parameter."""

    def __init__(self):
        super().__init__(5, 4)
        table = self.weight.detach()
        del self.weight
        self.register_buffer("table", table)

    def forward(self, ids):
        return self.table[ids]


def test_embeddings_without_a_weight_of_their_own_are_selected():
    computed = parametrizations.weight_norm(nn.Embedding(5, 4))
    model = nn.ModuleDict({"shared": computed, "wte": Packed(), "shared_": Packed()})
    assert list(select(model)) == ["shared", "wte", "shared_"]
    assert list(select(nn.ModuleDict({"shared": Packed(), "wte": computed}))) == ["shared", "wte"]
