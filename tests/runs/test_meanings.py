from dataclasses import dataclass
from typing import NamedTuple

from ntk_propulsion.runs.meanings import forms_within, meanings, summary_of
from ntk_propulsion.runs.options import option


class Pair(NamedTuple):
    """Two numbers.

    Attributes:
        a: The first.
        b: The second,
            in cm.

    Examples:
        c: none
    """

    a: int
    b: float


@dataclass(frozen=True)
class Base:
    """A base.

    Attributes:
        pairs: Some.
    """

    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Whole(Base):
    """A whole,
    of two lines.

    Attributes:
        more: By name.
    """

    more: dict[str, Base | None]
    seed: int = option(0)
    bare: int = 1


def test_fields_mean_what_docstrings_options_and_bases_say():
    assert meanings(Pair) == {"a": "The first.", "b": "The second, in cm."}
    said = meanings(Whole)
    assert said["pairs"] == "Some."
    assert said["more"] == "By name."
    assert said["seed"].startswith("Fixes everything")
    assert "bare" not in said


def test_a_summary_leaves_the_attributes_out():
    assert summary_of(Whole) == "A whole,\nof two lines."


def test_all_that_a_form_is_made_of_is_found_once():
    assert forms_within(Whole) == {"Whole": Whole, "Pair": Pair, "Base": Base}
