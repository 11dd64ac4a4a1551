"""A tiny configuration of any class: its defaults, with every size made small.

Sizes are told by the fields' names, a handful of rules for all families; a few families need sizes
that fit each other and are said in `OVERRIDES`. Of layers of several types one of each stays.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from transformers import PretrainedConfig

VOCABULARY = 48
LENGTH = 64
WIDTH = 16
PAD, BOS, EOS, OTHER_TOKEN, MASK = 0, 1, 2, 3, 4
_KEEP = re.compile(
    r"chunk_size_feed_forward|chunk_size_lm_head|seed|num_labels|.*_factor|.*_offset|.*pretraining_tp"
    r"|max_xpath.*|max_depth|tag_pad_id|subs_pad_id|sampling_rate|image_size|patch_size|.*_n_top|scale_emb|type_vocab_size|rotary_emb.*"
)
_RULES: list[tuple[str, int]] = [
    (r"pad_token_id|pad_id|pad_index", PAD),
    (r"bos_token_id|bos_index|decoder_start_token_id", BOS),
    (r"(forced_)?eos_token_id|eos_index", EOS),
    (r"mask_token_id|mask_index", MASK),
    (r".*(token_id|token_index|unk_index)", OTHER_TOKEN),
    (r".*vocab.*|num_buckets|.*num_hash_buckets", VOCABULARY),
    (r".*position_embeddings|.*positions|n_ctx|.*seq_len|max_.*length|context_length", LENGTH),
    (r"position_bias_max_distance|.*max_distance|rel_extent|.*max_length", LENGTH),
    (r"(num_)?(hidden_|encoder_|decoder_|dense_)?layers|n_layers?|num_.*_layers", 2),
    (r"num_layers_per_stack|num_blocks|[lrx]_layers|num_self_attends_per_block", 1),
    (r"moe_layer_end_index", 1),
    (r"first_k_dense_replace|num_dense_layers|moe_layer_start_index|.*sparse_step", 1),
    (r".*(key_value_heads|kv_heads|num_query_groups)", 1),
    (r"(num_)?experts_per_tok(en)?|moe_k|moe_topk|.*experts_top_k|index_topk.*", 2),
    (r"num_experts_per_tok.*|.*top_?k", 2),
    (r"n_group|num_expert_group|topk_group|.*n_groups|.*ngroups", 1),
    (r".*shared_experts?|num_nextn_predict_layers", 1),
    (r".*experts", 4),
    (r"expert_capacity", 4),
    (r".*qk_nope_head_dim|.*qk_rope_head_dim|rotary_dim", 4),
    (r".*(head_dim|headdim|head_size|d_head|dim_head|d_kv|kv_channels)", 8),
    (r".*(heads|n_head|heads_per_ngram)", 2),
    (r".*(window|window_size|window_len|chunk_size|chunk_length|chunksize|block_size)", 4),
    (r"local_radius|local_attention|.*transformer_stride|num_landmarks|.*num_random_blocks", 4),
    (r".*(rank|state_size|d_state)", 8),
    (r".*kernel_size", 3),
    (r".*(ffn|intermediate|inner|d_ff|dff|dim_ff|feed_forward|hidden_dim).*", 24),
]
_PATTERNS = [(re.compile(pattern), value) for pattern, value in _RULES]
_DECLARED_BY_BASE = {field.name for field in dataclasses.fields(PretrainedConfig)}
_BY_LAYERS = 4  # layers of distinct types that stay, at most

_UNSAID = {
    "head_dim": 8,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
}
"""What fields become that have no default."""
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
OVERRIDES: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "blt": {"use_cache": False},  # its cache asks for a number of layers that it does not have
    "codegen": {"n_head": 4},
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": _ROPE, "sliding_attention": _ROPE},
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "dbrx": {"attn_config": {"kv_n_heads": 1, "rope_theta": 10000.0, "clip_qkv": 8.0}},
    "dots3_note_text": {
        "layer_types": ["indexed_attention", "sliding_attention"],
        "mlp_layer_types": ["dense", "sparse"],
        "num_hidden_layers": 2,
        "per_layer_config": {1: {"q_lora_rank": 4, "kv_lora_rank": 4}},
    },
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "lilt": {"hidden_size": 24},
    "longcat_flash": {"head_dim": 4},
    "mamba2": {"hidden_size": 16, "expand": 2, "num_heads": 4, "head_dim": 8},
    "mobilebert": {"embedding_size": 8, "true_hidden_size": 8, "intra_bottleneck_size": 8},
    "neomme": {"head_dim": 16},
    "nystromformer": {"segment_means_seq_len": 6, "num_landmarks": 6},
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 4,
        "indexer_compress_ratio": 2,
    },
    "recurrent_gemma": {"num_hidden_layers": 3},
    "reformer": {"axial_pos_embds_dim": [8, 8], "axial_pos_shape": [8, 8], "num_buckets": 2},
    "xlstm": {"hidden_size": 128},  # the least that its own rounding up leaves as it is
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
    },
}
"""By family: sizes that fit each other and that no rule could tell."""


def tiny(config_class: Any) -> PretrainedConfig:
    """Return a tiny configuration.

    Raises:
        Exception: Whatever the class says of sizes that do not fit: there is none for it yet.
    """
    default = config_class()
    values: dict[str, Any] = {
        field.name: small(field.name, field.default)
        for field in dataclasses.fields(config_class)
        if field.name not in _DECLARED_BY_BASE
    }
    values |= {name: value for name, value in _UNSAID.items() if _said(default, name, 0) is None}
    values = {name: value for name, value in values.items() if value is not None}
    if _said(default, "num_key_value_heads") == _said(default, "num_attention_heads", 0):
        values["num_key_value_heads"] = 2
    for name in getattr(config_class, "sub_configs", None) or {}:
        part = getattr(default, name, None)
        if isinstance(part, PretrainedConfig):
            values[name] = tiny(type(part)).to_dict()
    values |= _layers(default, values)
    values |= {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
    values |= OVERRIDES.get(config_class.model_type, {})
    config: PretrainedConfig = config_class(**values)
    if config.is_encoder_decoder and getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = BOS
    return config


def small(name: str, value: Any) -> int | None:
    """Return a field's small value; None where it stays as it is."""
    if not isinstance(value, int) or isinstance(value, bool) or _KEEP.fullmatch(name):
        return None
    for pattern, least in _PATTERNS:
        if pattern.fullmatch(name):
            return least if name.endswith(("id", "index")) or value > least else None
    return WIDTH if value > LENGTH / 2 else None


def _said(config: Any, name: str, otherwise: Any = None) -> Any:
    """Return what a configuration says of a name; where layers differ in it, of the first."""
    try:
        return getattr(config, name, otherwise)
    except Exception:  # transformers' own, where layers differ
        return vars(config).get(name, otherwise)


def _layers(default: Any, values: dict[str, Any]) -> dict[str, Any]:
    """Return lists that say something of each layer, cut to one layer of each type and the last."""
    count = getattr(default, "num_hidden_layers", None)
    if not isinstance(count, int) or count < 3:
        return {}
    lists = {
        name: value
        for name, value in vars(default).items()
        if isinstance(value, list) and len(value) == count
    }
    if not lists:
        return {}
    kinds = [str([value[i] for value in lists.values()]) for i in range(count)]
    first = sorted({kind: i for i, kind in reversed(list(enumerate(kinds)))}.values())
    chosen = sorted({*first[: _BY_LAYERS - 1], count - 1})
    if len(chosen) < 2:
        chosen = [0, count - 1]
    cut: dict[str, Any] = {
        name: [small(name, value[i]) or value[i] for i in chosen] for name, value in lists.items()
    }
    return {**cut, "num_hidden_layers": len(chosen)}
