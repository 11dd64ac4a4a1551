import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntk_propulsion.tasks.labels import in_order, label_text, number_of


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((v, "1") for v in (1, 1.0, "1", "1.0", "1.", "+1", " 1.00\n", Decimal("1.0"))),
        *((v, "0") for v in ("-0", "-0.0", -0.0, "+0")),
        *((v, "-3") for v in (-3, "-3.0", -3.0)),
        *((v, v) for v in ("1_0", "01", "-01", "1e3", "0x10", "\u0661", "\uff11", "1,5", "0.50")),
        *((v, v) for v in ("1 000", "--1", "yes", "not very", "\U0001f600", "inf", ".5")),
        (True, "True"),
        (2**53 + 1, "9007199254740993"),
        ("9007199254740993.0", "9007199254740993"),
        ("9" * 5000, "9" * 5000),
        *((v, "") for v in (None, "", " \t", "nan", "NaN", math.nan)),
    ],
)
def test_labels_that_differ_are_told_apart_and_whole_numbers_are_one(value, text):
    assert label_text(value) == text


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([0, 1], "a list is no label"),
        ((0, 1), "a list is no label"),
        ({"a": 1}, "an object is no label"),
        (b"1", "type bytes is no label"),
        ("\ud83d", "U\\+D83D"),
        ("\ufeff1", "U\\+FEFF"),
        ("1\x00", "U\\+0000"),
        ("a\nb", "U\\+000A"),
        ("\x1b[31m", "U\\+001B"),
    ],
)
def test_what_is_no_label_is_refused(value, said):
    with pytest.raises(ValueError, match=said) as caught:
        label_text(value)
    assert str(caught.value).isprintable()


def test_only_what_everyone_reads_as_a_number_is_one():
    for text in ("1", "-1.5", ".5", "5.", "+2e-3", "1E5"):
        assert number_of(text) == float(text)
    for text in ("1_0", "\u0661", "1,5", "0x10", "1e", "", "nan", "- 1", "1 "):
        assert math.isnan(number_of(text))
    assert number_of("1e400") == number_of("9" * 5000) == number_of("Infinity") == math.inf


@given(st.lists(st.integers(-(10**40), 10**40), min_size=2, unique=True))
def test_whole_numbers_are_ordered_by_all_their_digits(numbers):
    assert in_order(map(str, numbers)) == tuple(map(str, sorted(numbers)))


def test_numbers_are_in_order_of_size_and_words_of_the_alphabet():
    assert in_order(["10", "9", "9.5", "-1"]) == ("-1", "9", "9.5", "10")
    assert in_order(["10", "9", "a"]) == ("10", "9", "a")
    assert in_order(["9007199254740993", "1", "9007199254740992"])[1:] == (
        *("9007199254740992", "9007199254740993"),
    )
