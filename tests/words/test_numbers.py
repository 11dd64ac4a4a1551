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
