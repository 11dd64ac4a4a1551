"""When a share of the update is said, and what stands behind it."""

import pytest

from ntk_propulsion.auditing.checkpoint import Kind
from ntk_propulsion.auditing.coverage import Part
from ntk_propulsion.auditing.gates import failed, parse_gates
from ntk_propulsion.auditing.shares import huge, limits, measured, stand_ins, unsaid
from ntk_propulsion.auditing.verdicts import sentence
from tests.auditing import samples


def total(**changes):
    return {"updates": samples.updates(total=samples.together(**changes))}


def layers(count, parameters):
    return {"coverage": samples.coverage(layers=Part(count, 2, parameters, 1056))}


def test_of_a_whole_tuning_the_share_is_said_and_nothing_behind_it():
    found = samples.checkpoint()
    assert (unsaid(found), limits(found), huge(found)) == ("", "", "")
    assert measured(found) == "all of the changed layers' parameters (2 layers)"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (layers(1, 300), "only 28% of the changed layers' parameters (1 of 2 layers) could be"),
        (
            total(rounding_share=None),
            "how far the file's format rounds each number is not modelled",
        ),
        (total(rounding_share=0.8), "rounding explains 80% of the update"),
        (total(rounding_share=1.3), "rounding explains 100.0% of the update"),
        (
            {"kind": Kind("full", "full")} | total(relative_norm=840.83),
            "the update is as large as the weights: 841 times their norm",
        ),
        ({"kind": Kind("another model", "another")}, "the update is as large as the weights"),
        ({"updates": samples.updates(total=None, reason="no layer changed")}, "no layer changed"),
    ],
)
def test_a_share_of_too_little_is_not_said(changes, reason):
    found = samples.checkpoint(**changes)
    assert unsaid(found).startswith(reason)
    assert "67%" not in sentence(found)
    said = {each.id: each for each in found.verdicts}["propulsion-share"]
    assert said.verdict == "not applicable"
    assert "67%" not in said.words


def test_gains_that_are_known_may_be_large():
    for kind in ("propulsion", "merged propulsion"):
        found = samples.checkpoint(kind=Kind(kind, kind), **total(relative_norm=1.4))
        assert unsaid(found) == ""
        assert "1.40 times the norm of the weights" in huge(found)
    thawed = samples.checkpoint(integrity=samples.thawed(), **total(relative_norm=1.4))
    assert unsaid(thawed)


def test_what_a_share_leaves_out_stands_behind_it():
    found = samples.checkpoint(**layers(1, 800))
    assert limits(found) == " (of 76% of the changed layers' parameters (1 of 2 layers))"
    said = {each.id: each for each in found.verdicts}["propulsion-share"]
    assert said.verdict == "67% of 76%"
    assert "1 of 2 layers" in sentence(found)
    mixed = samples.checkpoint(**total(rounding_share=0.2, update_outside_layers=0.3))
    assert limits(mixed) == (
        " (30% of the squared change lies outside layers; rounding explains 20% of it)"
    )


def test_a_regime_of_a_model_that_the_base_completed_is_said_to_be_so():
    part = samples.coverage(encoder=Part(8, 38, 400, 1000))
    found = samples.checkpoint(coverage=part)
    said = (
        "(the base's weights stand in for the rest: 40% of the base's parameters (8 of 38 tensors)"
    )
    assert said in stand_ins(found)
    assert said in sentence(found)
    for rule in ("regime", "learned"):
        assert said in {each.rule: each for each in found.findings}[rule].words
    assert said in {each.id: each for each in found.verdicts}["regime"].words
    (line,) = failed(parse_gates(["regime"], "task"), [found])
    assert "not wholly measured" in line
    assert stand_ins(samples.checkpoint()) == ""
    adapter = samples.integrity(frozen_base="not in the file")
    assert stand_ins(samples.checkpoint(coverage=part, integrity=adapter)) == ""
