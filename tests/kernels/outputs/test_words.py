"""Logits of a few tokens at one place of each example."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.outputs import MaskLogits, NextTokenLogits
from tests.architectures import ALL, PAD, build, tokens, vectors
from tests.kernels.oracle import relative, tolerance
from tests.kernels.outputs.hand import by_hand, kernel, tiny

CANDIDATES = (7, 11, 40)


@pytest.mark.parametrize("name", ["gpt2", "llama", "opt"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_next_token_logits_at_the_last_real_position(name: str, side: str) -> None:
    model = {
        "gpt2": lambda: build("gpt2-lm"),
        "llama": lambda: tiny("LlamaForCausalLM", "LlamaConfig", **PAD),
        "opt": lambda: tiny(
            "OPTForCausalLM", "OPTConfig", **PAD, ffn_dim=32, word_embed_proj_dim=16
        ),
    }[name]()
    batch = tokens(4)
    lengths = batch["attention_mask"].sum(1)
    assert lengths.min() < lengths.max()
    if side == "left":
        roll = [
            torch.roll(row, int(7 - n)) for row, n in zip(batch["input_ids"], lengths, strict=True)
        ]
        mask = [
            torch.roll(row, int(7 - n))
            for row, n in zip(batch["attention_mask"], lengths, strict=True)
        ]
        batch = {"input_ids": torch.stack(roll), "attention_mask": torch.stack(mask)}
    last = [6] * 4 if side == "left" else (lengths - 1).tolist()
    expected = by_hand(model, batch, lambda o, n: o.logits[0, last[n], list(CANDIDATES)])
    found = kernel(model, batch, NextTokenLogits(CANDIDATES))
    assert found.shape == (12, 12)
    assert relative(found, expected) < tolerance(name)


def test_next_token_logits_of_an_encoder_decoder_are_at_the_decoder_s_last() -> None:
    model, batch = build("t5"), ALL["t5"].batch(3)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])
    at_end = by_hand(model, batch, lambda o, n: o.logits[0, -1, list(CANDIDATES)])
    assert relative(kernel(model, batch, NextTokenLogits(CANDIDATES)), at_end) < tolerance("t5")
    batch["decoder_attention_mask"] = mask
    last = [3, 1, 2]
    expected = by_hand(model, batch, lambda o, n: o.logits[0, last[n], list(CANDIDATES)])
    assert relative(kernel(model, batch, NextTokenLogits(CANDIDATES)), expected) < tolerance("t5")


def test_next_token_logits_behind_the_virtual_tokens_of_prompt_tuning() -> None:
    peft = pytest.importorskip("peft", reason="PEFT is not installed: pip install peft")
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    model, batch = peft.get_peft_model(build("gpt2-lm"), config).double().eval(), tokens(3)
    last = 3 + batch["attention_mask"].sum(1) - 1
    expected = by_hand(model, batch, lambda o, n: o.logits[0, last[n], list(CANDIDATES)])
    assert relative(kernel(model, batch, NextTokenLogits(CANDIDATES)), expected) < 1e-12


MASK = 59


def prompts() -> dict[str, Tensor]:
    batch = tokens(4)
    for n, place in enumerate((1, 4, 3, 0)):
        batch["input_ids"][n, place] = MASK
    return batch


@pytest.mark.parametrize("family", ["Bert", "Roberta"])
def test_mask_logits_over_label_words(family: str) -> None:
    model, batch = tiny(f"{family}ForMaskedLM", f"{family}Config", **PAD), prompts()
    places = (1, 4, 3, 0)
    expected = by_hand(model, batch, lambda o, n: o.logits[0, places[n], [8, 30]])
    assert relative(kernel(model, batch, MaskLogits(MASK, (8, 30))), expected) < 1e-12


def without(batch: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {k: v for k, v in batch.items() if k != name}


def changed(batch: dict[str, Tensor], name: str, place: Any, value: int) -> dict[str, Tensor]:
    tensor = batch[name].clone()
    tensor[place] = value
    return {**batch, name: tensor}


@pytest.mark.parametrize(
    ("name", "batch", "outputs", "message"),
    [
        (
            "gpt2-lm",
            without(tokens(2), "attention_mask"),
            NextTokenLogits((1,)),
            "'attention_mask'",
        ),
        (
            "gpt2-lm",
            changed(tokens(4), "attention_mask", 2, 0),
            NextTokenLogits((1,)),
            "example 2 has no real token",
        ),
        ("gpt2-lm", tokens(2), NextTokenLogits((1, 60)), "between 0 and 59"),
        ("gpt2-lm", tokens(2), NextTokenLogits(()), "between 0 and 59"),
        ("bert", tokens(2), NextTokenLogits((1,)), "token logits"),
        (
            "gpt2-lm",
            changed(prompts(), "input_ids", (3, 0), 5),
            MaskLogits(MASK, (1,)),
            "example 3 has no mask",
        ),
        (
            "gpt2-lm",
            changed(prompts(), "input_ids", ([0, 2], 6), MASK),
            MaskLogits(MASK, (1,)),
            "examples 0, 2 have more than one mask .token 59.",
        ),
        ("mlp", vectors(4), MaskLogits(MASK, (1,)), "'input_ids'"),
    ],
)
def test_bad_input_is_named(name: str, batch: Any, outputs: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        kernel(build(name), batch, outputs)
