from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntk_propulsion.errors import LONGEST, InputError, one_line, plain, plainly, shown, unknown

ACTING = ["\x1b[31m", "\x9b31m", "\x07", "\r", "\u202e", "\u2066", "\u200b", "\ufeff", "\ue000"]
ACTING += ["\ud800", "\x7f", "\u2028", "\x00"]


def test_an_unknown_name_is_answered_by_the_nearest_or_by_all():
    assert str(unknown("tuning", "lore", ["full", "lora"])).endswith("did you mean lora?")
    assert str(unknown("tuning", "xyz", ["lora", "full"])).endswith("known: full, lora")
    assert isinstance(unknown("tuning", "x", []), InputError)


def test_a_strangers_text_stays_on_one_short_line():
    assert shown("two\nlines") == r"'two\nlines'"
    assert shown([1, 2]) == "'list'"
    assert len(shown("x" * 1000)) == 80


@pytest.mark.parametrize("acting", ACTING)
def test_what_would_act_on_its_reader_is_spelt_out(acting):
    for text in (plain(acting), shown(acting), str(InputError(f"a {acting} b"))):
        assert text.isprintable()


def test_plain_text_stays_as_it_is():
    for text in ("a b", "é ü ß", "日本語", "🙂", "x[1].weight", "שלום"):
        assert plain(text) == text
    assert plain("a\tb\nc\u00a0d") == "a b c d"


@given(st.text(st.characters(), max_size=2000))
def test_an_error_is_one_short_printable_line_whatever_it_quotes(text):
    for error in (InputError(text), unknown("key", text, [text, text[::-1]])):
        assert str(error).isprintable()
        assert len(str(error)) <= LONGEST


def test_a_long_error_keeps_its_beginning_and_its_advice():
    said = str(InputError(f"/a/path: {'x' * 10**6} is too long: shorten it"))
    assert said.startswith("/a/path: xxx")
    assert said.endswith("is too long: shorten it")
    assert len(one_line("word " * 100, 50)) == 50


@dataclass(frozen=True)
class Told:
    words: str
    inner: tuple["Told", ...] = ()
    numbers: dict[str, float] | None = None


def test_results_are_made_plain_however_deep_they_are():
    told = Told("a\x1b", (Told("\u202e"),), {"\x07": 1.5})
    assert plainly(told) == Told("a\\x1b", (Told("\\u202e"),), {"\\x07": 1.5})
    assert plainly([Told("a"), None, 3]) == [Told("a"), None, 3]
