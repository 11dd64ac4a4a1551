"""Rules that a pipeline fails by."""

import math

import pytest

from ntk_propulsion.auditing.gates import failed, parse_gates
from ntk_propulsion.errors import InputError


def checkpoint(**changes):
    total = {"min": 0.97, "max": 1.01}
    found = {
        "frozen_base": "confirmed",
        "undeclared": [],
        "undeclared_count": 0,
        "missing_count": 0,
        "nonfinite": {},
    }
    return {
        "name": "c",
        "integrity": found | changes.pop("integrity", {}),
        "vectors": {"left_out": [], "total": total},
        "kernels": {"regime": {"kernel_regime": "holds"}},
    } | changes


def fails(rule, **changes):
    return failed(parse_gates([rule], "task"), [checkpoint(**changes)])


@pytest.mark.parametrize("rule", ["frozen-base", "finite", "range=0.97:1.01", "regime"])
def test_a_good_checkpoint_passes(rule):
    assert fails(rule) == []


@pytest.mark.parametrize(
    ("rule", "changes", "said"),
    [
        (
            "frozen-base",
            {"integrity": {"frozen_base": "refuted", "undeclared": ["w"], "undeclared_count": 2}},
            "frozen-base failed for c: 2 tensors differ, first w",
        ),
        (
            "frozen-base",
            {"integrity": {"frozen_base": "incomplete", "missing_count": 3}},
            "3 tensors of the base are not in the file",
        ),
        ("finite", {"integrity": {"nonfinite": {"w": 7}}}, "7 values are not, first in w"),
        ("range=0.98:1.02", {}, "range=0.98:1.02 failed for c: z reaches from 0.97 to 1.01"),
        ("range=0.9:1", {}, "z reaches"),
        ("range=0.9:1.1", {"vectors": None}, "it has no scaling vectors"),
        ("range=0.9:1.1", {"vectors": {"left_out": ["m"]}}, "the scaling of m is not finite"),
        ("regime", {"kernels": {"regime": {"kernel_regime": "weakly"}}}, "the verdict is 'weakly'"),
        ("regime", {"kernels": {"regime": {"kernel_regime": "undecided"}}}, "'undecided'"),
        ("regime", {"kernels": {"reason": "degree unknown"}}, "not measured: degree unknown"),
    ],
)
def test_what_is_wrong_or_cannot_be_checked_fails(rule, changes, said):
    (line,) = fails(rule, **changes)
    assert said in line


def test_an_adapter_without_base_weights_has_not_thawed_any():
    assert fails("frozen-base", integrity={"frozen_base": "not in the file"}) == []


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("frozen", "did you mean frozen-base"),
        ("range", "give two numbers"),
        ("range=1", "give two numbers"),
        ("range=1.1:0.9", "give two numbers"),
        ("range=a:b", "give two numbers"),
        ("range=nan:1", "give two numbers"),
        ("finite=3", "takes no value"),
    ],
)
def test_rules_that_make_no_sense_are_refused(rule, said):
    with pytest.raises(InputError, match=said):
        parse_gates([rule], "task")


def test_the_regime_needs_a_task_and_a_range_may_be_open():
    with pytest.raises(InputError, match="need --task"):
        parse_gates(["regime"], None)
    (gate,) = parse_gates(["range=0:inf"], None)
    assert gate.bounds == (0, math.inf)
