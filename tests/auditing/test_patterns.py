"""A stranger's patterns: what Python's own matcher says of them, and never for long."""

import contextlib
import random
import re
import time

import pytest

from ntk_propulsion.auditing.inapplicable import InapplicableError
from ntk_propulsion.auditing.patterns import first_match, matches

MODULES = [
    "query",
    "layer.0.query",
    "model.layers.11.self_attn.q_proj",
    "a",
    "b.a",
    "",
    "aab",
    "ab",
]
PATTERNS = [
    *("query", "q_proj", r"layers\.\d+\.self_attn\.q_proj", r".*\.(q|v)_proj", "a|b", "(a|b)*"),
    *(r"[^.]+", r"[a-c\d_]*", "^model.*", "a{2}b?", "a{0,2}?b", "(?:a+)+b", r"\w+\.\w+", ""),
    *(r"\S*", r"layers.1{1,2}.*", "(a?){5}b", "(?P<x>a)b", r"model.layers.(9|10|11).*"),
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_finds_the_modules_that_peft_s_own_search_finds(pattern):
    for module in MODULES:
        wanted = re.match(rf"(.*\.)?({pattern})$", module) is not None
        assert (first_match([pattern], module) == pattern) is wanted, module
        assert matches(pattern, module) is (re.fullmatch(pattern, module) is not None)


def test_random_patterns_match_what_python_matches():
    draw = random.Random(0)
    parts = ["a", "b", ".", "[ab]", "[^a]", "(a|b)", "(ab|a)", "(?:b?a)"]
    times = ["", "", "*", "+", "?", "{1,2}", "{2}", "*?"]
    for _ in range(400):
        pattern = "".join(
            draw.choice(parts) + draw.choice(times) for _ in range(draw.randint(1, 4))
        )
        text = "".join(draw.choice("abc") for _ in range(draw.randint(0, 7)))
        assert matches(pattern, text) is (re.fullmatch(pattern, text) is not None), (pattern, text)


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+b",
        "(.*)*(.*)*(.*)*x",
        "(a|aa)+b",
        "(((a?){1000}){1000}){1000}b",
        "(a|a)*" * 40 + "b",
        "(" * 240 + "b" + ")*" * 80 + ")" * 160,
    ],
)
def test_no_pattern_takes_for_ever(pattern):
    start = time.perf_counter()
    found = False
    with contextlib.suppress(InapplicableError):
        found = matches(pattern, "a" * 60)
    assert found is False
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    "pattern",
    [r"(a)\1", "(?=a)a", "(?<!b)a", "(?i)a", "(?i:a)", r"\ba", "(", "a{9999999999}", "x" * 501,
     "a)|(b", "[", "*", "(?>a)"],
)  # fmt: skip
def test_what_is_no_plain_pattern_is_refused(pattern):
    with pytest.raises(InapplicableError, match="pattern"):
        first_match([pattern], "aa")


def test_the_first_pattern_that_matches_is_taken():
    assert first_match(["key", "query", ".*"], "layer.0.query") == "query"
    assert first_match(["uery"], "layer.0.query") is None
