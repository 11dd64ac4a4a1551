"""Each kind of outputs against autograd of a formula written out, example by example."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers as hf
from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels import empirical_ntk
from ntk_propulsion.kernels.engine import job
from ntk_propulsion.kernels.engine import planning as plan
from ntk_propulsion.kernels.outputs import (
    Loss,
    MaskLogits,
    NextTokenLogits,
    SpanLogits,
    resolve_outputs,
)
from ntk_propulsion.kernels.reference import reference_ntk
from tests.architectures import ALL, PAD, SIZES, build, tokens, vectors
from tests.kernels.oracle import relative, tolerance


def by_hand(model: nn.Module, batch: Any, formula: Callable[[Any, int], Tensor]) -> Tensor:
    """The kernel of ``formula(output of example n alone, n)``, (O,)."""
    parameters, rows = list(model.requires_grad_(True).parameters()), []
    inputs = batch if isinstance(batch, dict) else {"input": batch}
    for n in range(len(next(iter(inputs.values())))):
        values = formula(model(**{k: v[n : n + 1] for k, v in inputs.items()}), n)
        for value in values:
            found = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
            rows.append(
                torch.cat(
                    [
                        (torch.zeros_like(p) if g is None else g).flatten()
                        for g, p in zip(found, parameters, strict=True)
                    ]
                )
            )
    return torch.stack(rows) @ torch.stack(rows).T


def tiny(model: str, config: str, **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    return getattr(hf, model)(getattr(hf, config)(**SIZES, **settings)).double().eval()


def kernel(model: nn.Module, batch: Any, outputs: Any, **keywords: Any) -> Tensor:
    return empirical_ntk(model, batch, ["full"], outputs, **keywords)["full"].matrix


# -- by name


def test_margin_and_sum() -> None:
    model, batch = build("bert"), tokens(3)
    margin = by_hand(model, batch, lambda o, n: o.logits[0, 1:] - o.logits[0, :1])
    assert relative(kernel(model, batch, "margin"), margin) < 1e-12
    total = by_hand(model, batch, lambda o, n: o.logits.sum(1) / 2**0.5)
    assert relative(kernel(model, batch, "sum"), total) < 1e-12


# -- the loss


LABELS = torch.tensor([1, 0, 2, 2])


def test_loss_of_classes_is_cross_entropy() -> None:
    model, batch = build("mlp"), vectors(4)
    expected = by_hand(model, batch, lambda o, n: F.cross_entropy(o, LABELS[n : n + 1])[None])
    for labels in (LABELS, LABELS[:, None], LABELS.double(), LABELS.tolist()):
        assert relative(kernel(model, batch, Loss(labels)), expected) < 1e-12
    assert relative(reference_ntk(model, batch, Loss(LABELS)), expected) < 1e-12


def test_loss_of_one_logit_is_the_squared_error() -> None:
    model, batch = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 1)).double(), vectors(4)
    labels = torch.tensor([0.5, 2.0, -1.0, 0.0])
    expected = by_hand(model, batch, lambda o, n: (o[0] - labels[n]) ** 2)
    assert relative(kernel(model, batch, Loss(labels)), expected) < 1e-12


@pytest.mark.parametrize("problem", [None, "single_label_classification"])
def test_labels_in_the_batch_are_the_loss_s(problem: str | None) -> None:
    """The model computes a loss of its own with them, a mean over the batch: not used."""
    model, batch = build("bert"), tokens(4)
    model.config.problem_type = problem
    labels = torch.tensor([1, 0, 0, 1])
    expected = kernel(model, batch, Loss(labels))
    for outputs in ("loss", Loss()):
        assert relative(kernel(model, {**batch, "labels": labels}, outputs), expected) < 1e-12


def test_loss_across_batches_takes_each_batch_s_labels() -> None:
    model = build("bert")
    batch = {**tokens(3), "labels": torch.tensor([1, 0, 0])}
    other = {**tokens(4), "labels": torch.tensor([0, 0, 1, 1])}
    both = {k: torch.cat([batch[k], other[k]]) for k in batch}
    expected = kernel(model, both, "loss")[:3, 3:]
    assert relative(kernel(model, batch, "loss", other=other), expected) < 1e-12


def test_examples_a_few_at_a_time_keep_their_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch, outputs = build("mlp"), vectors(8), Loss(torch.arange(8) % 3)
    at_once = kernel(model, batch, outputs)

    def three_at_a_time(*args: Any, **keywords: Any) -> plan.Plan:
        return replace(plan.make_plan(*args, **keywords), chunk=3)

    monkeypatch.setattr(job, "make_plan", three_at_a_time)
    assert relative(kernel(model, batch, outputs), at_once) < 1e-12


# -- tokens


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


# -- spans


def answering() -> nn.Module:
    return tiny("BertForQuestionAnswering", "BertConfig")


def test_span_logits_at_all_positions() -> None:
    model, batch = answering(), tokens(2)
    expected = by_hand(model, batch, lambda o, n: torch.cat([o.start_logits[0], o.end_logits[0]]))
    found = kernel(model, batch, SpanLogits())
    assert found.shape == (28, 28)
    assert relative(found, expected) < 1e-12


@pytest.mark.parametrize(
    ("positions", "own"),
    [((2, 5), [[2, 5]] * 3), (torch.tensor([[0, 2], [1, 1], [6, 3]]), [[0, 2], [1, 1], [6, 3]])],
)
def test_span_logits_at_given_positions(positions: Any, own: list[list[int]]) -> None:
    model, batch = answering(), tokens(3)
    expected = by_hand(
        model, batch, lambda o, n: torch.cat([o.start_logits[0, own[n]], o.end_logits[0, own[n]]])
    )
    assert relative(kernel(model, batch, SpanLogits(positions)), expected) < 1e-12


# -- bad input


def without(batch: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {k: v for k, v in batch.items() if k != name}


def changed(batch: dict[str, Tensor], name: str, place: Any, value: int) -> dict[str, Tensor]:
    tensor = batch[name].clone()
    tensor[place] = value
    return {**batch, name: tensor}


@pytest.mark.parametrize(
    ("name", "batch", "outputs", "message"),
    [
        ("mlp", vectors(4), "loss", "give Loss.labels. or put them into the batch as 'labels'"),
        ("mlp", vectors(4), Loss([0, 1]), r"one label per example, 4 in all"),
        ("mlp", vectors(4), Loss([0, 1, 3, 1]), "from 0 to 2, and one is 3"),
        ("mlp", vectors(4), Loss([0, 1, -1, 1]), "one is -1"),
        ("mlp", vectors(4), Loss([0, 1, 0.5, 1]), "one is 0.5"),
        ("gpt2-lm", tokens(2), Loss([0, 1]), "logits .examples, classes."),
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
        ("bert", tokens(2), SpanLogits(), "no start_logits"),
        ("bert", tokens(2), SpanLogits(torch.zeros(3, 2)), "positions for 3 examples"),
    ],
)
def test_bad_input_is_named(name: str, batch: Any, outputs: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        kernel(build(name), batch, outputs)


def test_positions_out_of_the_text_are_named() -> None:
    with pytest.raises(InputError, match="between 0 and 6, and one is 7"):
        kernel(answering(), tokens(2), SpanLogits((7,)))


@pytest.mark.parametrize("outputs", [Loss([0, 1, 1]), SpanLogits(torch.zeros(3, 1))])
def test_labels_given_apart_are_refused_for_cross_kernels(outputs: Any) -> None:
    with pytest.raises(InputError, match="labels go into both batches"):
        kernel(build("mlp"), vectors(3), outputs, other=vectors(3))


def test_unknown_outputs_are_named() -> None:
    with pytest.raises(InputError, match="did you mean loss"):
        resolve_outputs("losses")
