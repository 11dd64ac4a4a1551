"""What is said of scaling vectors says of how many of them."""

import pytest

from ntk_propulsion.auditing import vector_findings as rules
from ntk_propulsion.propulsion.statistics import Moved
from tests.auditing import samples

ODD = {
    "dead": 1,
    "dead_neurons": (Moved("m", 3, 0.002),),
    "sign_changes": 1,
    "outliers": 9,
    "furthest": (Moved("m", 7, 1.5),),
}


@pytest.mark.parametrize(
    ("rule", "inside"),
    [
        (rules.dead, 1.0),
        (rules.signs, 1.0),
        (rules.outliers, 1.0),
        (rules.inside, 1.0),
        (rules.range_left, 0.5),
    ],
)
def test_vectors_that_are_not_finite_are_counted_in_every_finding(rule, inside):
    total = samples.statistics("total", "total", n=32, share_in_range=inside, **ODD)
    whole = samples.checkpoint(vectors=samples.vectors(total=total))
    assert rule(whole)
    assert "finite" not in rule(whole)
    left = samples.vectors(total=total, left_out=("x",), entries_left_out=32)
    said = rule(samples.checkpoint(vectors=left))
    assert said.endswith("(50% of the vectors' parameters (2 of 3 layers) are finite and counted)")


def test_a_degree_that_is_known_needs_no_word():
    assert rules.degree(samples.checkpoint()) == ""
    assert "degree unknown" in rules.degree(samples.checkpoint(degree=None))


def test_a_range_of_a_part_of_the_vectors_does_not_hold():
    vectors = samples.vectors(left_out=("x",), entries_left_out=16)
    found = samples.checkpoint(vectors=vectors)
    said = {each.id: each for each in found.verdicts}["range"]
    assert said.verdict == "does not hold"
    assert "67% of the vectors' parameters (2 of 3 layers)" in said.words
