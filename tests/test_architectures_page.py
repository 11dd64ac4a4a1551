"""The sweep over transformers' model classes works, and its page lists all of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import transformers

from benchmarks.architectures.classes import Candidate, candidates, other_input
from benchmarks.architectures.page import page
from benchmarks.architectures.sweep import Record, sweep
from benchmarks.architectures.tiny import small, tiny
from benchmarks.architectures.trial import Trial, try_class

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architectures.md"
TRIED = {
    "AlbertForMaskedLM": "masked",
    "BartForSequenceClassification": "classifier",
    "GPT2LMHeadModel": "causal",
    "RobertaForQuestionAnswering": "answers",
    "T5ForConditionalGeneration": "seq2seq",
}
MIXED_SIZES = ["Qwen3NextForCausalLM", "DeepseekV3ForCausalLM", "Zamba2ForCausalLM"]


def named(name: str) -> Candidate:
    return next(each for each in candidates() if each.name == name)


def test_the_page_lists_every_class_of_the_pinned_transformers() -> None:
    pinned = re.search(r"^transformers==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
    assert pinned
    if transformers.__version__ != pinned[1]:
        pytest.skip(f"transformers {transformers.__version__} is not the pinned {pinned[1]}")
    text = PAGE.read_text()
    assert f"transformers {pinned[1]} " in text
    assert not [each.name for each in candidates() if f"| `{each.name}` |" not in text]


def test_a_class_of_several_tables_is_tried_once_with_all_its_heads() -> None:
    assert named("BartForConditionalGeneration").heads == ("masked", "seq2seq")
    assert named("GPT2LMHeadModel").families == ("gpt-sw3", "gpt2")
    names = [each.name for each in candidates()]
    assert len(set(names)) == len(names) > 400


@pytest.mark.parametrize(
    ("name", "takes"),
    [
        ("WhisperForCausalLM", "audio"),
        ("Gemma3ForSequenceClassification", "images"),
        ("Qwen3_5ForCausalLM", None),
        ("BertLMHeadModel", None),
    ],
)
def test_classes_that_see_or_hear_are_left_out(name: str, takes: str | None) -> None:
    assert other_input(named(name)) == takes


@pytest.mark.parametrize("name", [*TRIED, *MIXED_SIZES])
def test_a_tiny_configuration_makes_a_tiny_model(name: str) -> None:
    candidate = named(name)
    model = candidate.model_class(tiny(candidate.config_class))
    assert sum(p.numel() for p in model.parameters()) < 60_000


def test_layers_of_each_type_stay() -> None:
    config = tiny(named("Qwen3NextForCausalLM").config_class)
    assert set(config.layer_types) == {"linear_attention", "full_attention"}
    assert config.num_hidden_layers == len(config.layer_types)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("hidden_size", 768, 16),
        ("num_hidden_layers", 12, 2),
        ("num_key_value_heads", 8, 1),
        ("rotary_dim", 64, 4),
        ("conv_kernel", 4, None),
        ("pad_token_id", 50256, 0),
        ("use_cache", True, None),
        ("layer_norm_eps", 1e-5, None),
    ],
)
def test_fields_become_small_by_their_names(field: str, value: object, expected: object) -> None:
    assert small(field, value) == expected


@pytest.mark.parametrize("name", TRIED)
def test_a_class_of_each_head_is_exact(name: str) -> None:
    candidate = named(name)
    assert candidate.heads[0] == TRIED[name]
    trial = try_class(candidate)
    assert trial.verdict in ("exact", "fallback"), trial
    assert trial.error is not None
    assert trial.error < 1e-10


def test_a_model_that_does_not_run_is_a_verdict_too() -> None:
    assert try_class(named("LxmertForQuestionAnswering")).verdict == "not run"


def test_a_sweep_goes_on_where_it_stopped_and_gives_up_what_is_late(tmp_path: Path) -> None:
    known = Trial("BertLMHeadModel", "exact", error=0.0, worst=0.0)
    Record(tmp_path / "kept.jsonl").add(known)
    chosen = [named("BertLMHeadModel"), named("GPT2LMHeadModel")]
    trials = sweep(chosen, Record(tmp_path / "kept.jsonl"), seconds=0.1)
    assert trials[0] == known
    assert trials[1].note == "not done after 0 s"
    assert sweep(chosen, Record(tmp_path / "kept.jsonl"), seconds=0) == trials


def test_a_page_says_what_came_of_each_class() -> None:
    wrong = Trial("BertLMHeadModel", "WRONG", 0.5, 0.9, note="a | b\nc")
    eased = Trial("GPT2LMHeadModel", "fallback", 1e-16, 1e-15, fallback={"w": "why"})
    every = [named(name) for name in ("BertLMHeadModel", "GPT2LMHeadModel", "WhisperForCausalLM")]
    text = page(every, [wrong, eased], {"WhisperForCausalLM": "audio"})
    assert (
        "| bert | `BertLMHeadModel` | causal | **wrong** | 5e-01 | 9e-01 | a &#124; b c |" in text
    )
    assert "exact by fallback | 1e-16 | 1e-15 | `w`: why |" in text
    assert "| `WhisperForCausalLM` | audio |" in text


def test_no_class_has_a_wrong_kernel_or_an_error_that_is_not_ours() -> None:
    text = PAGE.read_text()
    assert "**wrong**" not in text
    assert "**raw error**" not in text
