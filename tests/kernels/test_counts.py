"""Counts in few digits."""

import pytest

from ntk_propulsion.kernels._counts import plural, short_count


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (9_999, "9999"),
        (10_000, "10.0k"),
        (86_018, "86.0k"),
        (22_713_986, "22.7M"),
        (7_000_000_000, "7.0B"),
    ],
)
def test_large_counts_have_three_digits(count: int, text: str) -> None:
    assert short_count(count) == text


def test_one_is_singular() -> None:
    assert [plural(n, "example") for n in (0, 1, 2)] == ["0 examples", "1 example", "2 examples"]
