import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntk_propulsion import words


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.12345, "0.123"), (12345.6, "12346"), (1e-6, "1.00e-06"), (3.0, "3"), (0, "0"),
     (None, "—"), (math.nan, "—"), (math.inf, "—"), (np.float32(0.5), "0.500"), (-0.5, "-0.500")],
)  # fmt: skip
def test_numbers_have_three_digits(value, text):
    assert words.number(value) == text


@given(st.floats(0, 1 - 1e-6, exclude_max=True))
def test_a_similarity_below_one_is_never_written_as_one(value):
    assert float(words.near_one(value)) < 1
    assert float(words.near_one(value)) == pytest.approx(value, abs=5e-4)


@pytest.mark.parametrize(
    ("value", "text"), [(1.0, "100.0%"), (0.94, "94%"), (0.052, "5.2%"), (0.99999, "99.999%")]
)
def test_a_share_short_of_all_is_not_all(value, text):
    assert words.percent(value) == text


def test_intervals_are_in_brackets_where_there_are_any():
    row = {"metrics": {"cka": {"value": 0.97, "low": 0.95, "high": 0.98}, "x": {"value": 2.5}}}
    assert words.interval(row, "cka") == "0.970 [0.950, 0.980]"
    assert words.interval(row, "x") == "2.50"
    assert words.interval(row, "absent") == "—"
    assert words.interval(None, "cka") == "—"


@pytest.mark.parametrize(
    ("labels", "label", "name"),
    [(["no", "yes"], 1, "yes"), (["no", "yes"], np.int64(0), "no"), (["no"], 5, "5"),
     (["no", "yes"], "yes", "yes"), (None, 2.4, "2.4"), ([], 1, "1")],
)  # fmt: skip
def test_labels_come_as_indices_names_or_values(labels, label, name):
    assert words.label_name({"task": {"labels": labels}}, label) == name


def test_lists_read_as_prose():
    assert words.listed("abc") == "a, b and c"
    assert words.listed("a") == "a"


def test_tunings_have_their_own_names_in_sums_too():
    assert [words.tuning(t) for t in ("lora", "ia3", "bitfit", "random_subset")] == [
        "LoRA", "IA3", "BitFit", "random subset",
    ]  # fmt: skip
    assert words.tuning("propulsion+bitfit") == "Propulsion + BitFit"
    assert words.tuning("my_own") == "my own"
