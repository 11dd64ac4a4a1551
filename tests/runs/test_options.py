from dataclasses import dataclass, fields

import pytest

from ntk_propulsion.runs.options import MEANINGS, meaning_of, option


@dataclass(frozen=True)
class Chosen:
    start: str = option(meaning="Where it begins.")
    rate: float | None = option(None, "How fast.", unset="chosen by the sweep")
    degree: int = option(3, more="If at all.")
    colour: str = option("red")


def test_a_field_has_its_default_or_must_be_given():
    assert Chosen("here") == Chosen("here", None, 3, "red")
    with pytest.raises(TypeError):
        Chosen()


def test_a_field_means_what_it_says_or_what_its_name_means_everywhere():
    start, rate, degree, colour = fields(Chosen)
    assert meaning_of(start) == "Where it begins."
    assert meaning_of(rate) == "How fast."
    assert rate.metadata["unset"] == "chosen by the sweep"
    assert meaning_of(degree) == f"{MEANINGS['degree']} If at all."
    with pytest.raises(KeyError):
        meaning_of(colour)
