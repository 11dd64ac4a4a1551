from dataclasses import dataclass, fields, is_dataclass
from typing import NamedTuple

import pytest

from ntk_propulsion.auditing.results import AuditRecord
from ntk_propulsion.report.document import Report
from ntk_propulsion.runs.meanings import forms_within, meanings, summary_of
from ntk_propulsion.runs.options import option
from ntk_propulsion.runs.records import schema


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


@pytest.mark.parametrize("report", [Report, AuditRecord])
def test_every_key_of_report_json_has_its_meaning_and_every_meaning_its_key(report):
    forms = forms_within(report)
    assert {*schema(report)["$defs"]} <= {*forms}
    for name, form in forms.items():
        assert summary_of(form), name
        keys = [key.name for key in fields(form)] if is_dataclass(form) else form._fields
        said = meanings(form)
        assert {*keys} == {*said}, name
        assert all(said.values()), name


@pytest.mark.parametrize("report", [Report, AuditRecord])
def test_the_schema_of_report_json_describes_every_key(report):
    for name, form in schema(report)["$defs"].items():
        bare = [key for key, it in form.get("properties", {}).items() if not it.get("description")]
        assert not bare, name
