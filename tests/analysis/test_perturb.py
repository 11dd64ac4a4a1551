"""Changed texts keep what they must keep; training texts are found in test texts."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.perturb import apart, by_length, changed, scramble, typos, visible
from ntk_propulsion.encoding import tokenize
from ntk_propulsion.errors import InputError
from ntk_propulsion.models import load_model
from ntk_propulsion.tasks import Example
from tests import tiny_runs
from tests.tiny_folders import WORDS, make_task

texts = st.text("abcdefg ',.9é", max_size=60)


def example(text: str, index: int = 0, pair: str | None = None) -> Example:
    return Example(index, text, pair, 0)


@given(texts, st.integers(0, 10**6))
def test_scrambling_keeps_the_words_and_nothing_else_of_their_order(text: str, seed: int) -> None:
    found = scramble(text, Random(seed))
    assert Counter(found.split()) == Counter(text.split())
    assert found == scramble(text, Random(seed))


def test_every_order_of_words_is_as_likely() -> None:
    generator = Random(0)
    seen = Counter(scramble("a b c", generator) for _ in range(6000))
    assert len(seen) == 6
    assert all(abs(count - 1000) < 150 for count in seen.values())  # 5 standard deviations


@given(texts, st.floats(0, 1), st.integers(0, 10**6))
def test_typos_only_drop_or_swap_letters_inside_their_words(
    text: str, rate: float, seed: int
) -> None:
    found = typos(rate)(text, Random(seed))
    assert not Counter(found) - Counter(text)
    others = [c for c in text if not c.isalpha()]
    assert [c for c in found if not c.isalpha()] == others
    before, after = ("".join(c if c.isalpha() else " " for c in t).split() for t in (text, found))
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        assert not Counter(new) - Counter(old)
        assert 1 <= len(new) <= len(old)


@given(texts, st.integers(0, 10**6))
def test_at_rate_0_nothing_is_typed_wrong_and_at_rate_1_every_longer_word(
    text: str, seed: int
) -> None:
    assert typos(0)(text, Random(seed)) == text
    found = typos(1)("ab cdef i ghab", Random(seed)).split()
    assert found[2] == "i"
    assert all(a != b for a, b in zip(found, ("ab", "cdef", "", "ghab"), strict=True))


def test_letters_are_hit_at_the_rate_half_of_them_dropped() -> None:
    text = "abcdefghij" * 4000
    found = typos(0.1)(text, Random(0))
    lost = (len(text) - len(found)) / len(text)
    # A swap takes two letters in one step: 0.1 / 1.05 of the letters are hit.
    assert lost == pytest.approx(0.05 / 1.05, rel=0.07)


@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan")])
def test_a_rate_that_is_no_probability_is_refused(rate: float) -> None:
    with pytest.raises(InputError, match="no probability"):
        typos(rate)


def test_an_example_is_changed_alike_whatever_stands_beside_it() -> None:
    many = [example("a b c d e f g h", i, "h g f e d c b a") for i in range(5)]
    found = changed(many, scramble, seed=3)
    assert changed(many[3:], scramble, seed=3) == found[3:]
    assert changed(many, scramble, seed=4) != found
    assert len({e.text for e in found}) > 1
    assert [e.index for e in found] == list(range(5))
    assert sorted((found[0].pair or "").split()) == list("abcdefgh")


def test_the_thirds_are_the_shortest_and_the_longest() -> None:
    examples = [example("w " * n, n) for n in (5, 1, 4, 2, 3, 6, 7)]
    shortest, longest = by_length(examples)
    assert [e.index for e in shortest] == [1, 2]
    assert [e.index for e in longest] == [6, 7]
    with pytest.raises(InputError, match="at least 3"):
        by_length(examples[:2])


def test_texts_that_share_a_phrase_with_training_texts_are_dropped() -> None:
    trained = [example("Good  Film"), example("a long story about a dull plot, with much acting")]
    kept = ["it is a bad film", "goodfilm", "a good films", "the story"]
    dropped = ["GOOD film", "such a good\tfilm .", "a dull  plot, with", "Story about"]
    found = apart([example(text) for text in (*kept, *dropped)], trained)
    assert [e.text for e in found] == kept


def test_what_the_cut_leaves_gives_the_tokens_of_the_cut_text() -> None:
    loaded = load_model(str(tiny_runs.model()), make_task())
    loaded.tokenizer.model_max_length = 6
    examples = [example("  ".join(WORDS), 0), example("it is good", 1)]
    found = visible(loaded, examples)
    assert found[0].text == "  ".join(WORDS[:4])  # two of six places are special tokens
    assert found[1] == examples[1]
    cut, whole = tokenize(loaded, found), tokenize(loaded, examples)
    assert cut.rows == whole.rows
    assert (cut.truncated, whole.truncated) == (0, 1)
    paired = [example("  ".join(WORDS), 0, "it is")]
    assert visible(loaded, paired) == paired
