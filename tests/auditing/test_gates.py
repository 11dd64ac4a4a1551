"""Rules that a pipeline fails by."""

import math

import pytest

from ntk_propulsion.auditing.checkpoint import AuditedKernels
from ntk_propulsion.auditing.coverage import Part
from ntk_propulsion.auditing.gates import failed, parse_gates
from ntk_propulsion.errors import InputError
from tests.auditing import samples

LACKING = samples.coverage(encoder=Part(8, 38, 400, 1000))
WEIGHT = f"{samples.DENSE}.weight"


def left(verdict):
    return {"kernels": samples.kernels(regime=samples.regime(kernel_regime=verdict))}


def fails(rule, **changes):
    return failed(parse_gates([rule], "task"), [samples.checkpoint(**changes)])


@pytest.mark.parametrize("rule", ["frozen-base", "finite", "range=0.98:1.02", "regime"])
def test_a_good_checkpoint_passes(rule):
    assert fails(rule) == []


@pytest.mark.parametrize(
    ("rule", "changes", "said"),
    [
        ("frozen-base", {"integrity": samples.thawed()}, f"1 tensors differ, first {WEIGHT}"),
        (
            "frozen-base",
            {"integrity": samples.lacking()},
            "frozen-base failed for c: 3 tensors of the base are not in the file",
        ),
        (
            "frozen-base",
            {"integrity": samples.lacking(), "coverage": LACKING},
            "not in the file; checked: 40% of the base's parameters (8 of 38 tensors)",
        ),
        (
            "frozen-base",
            {"integrity": samples.integrity(frozen_base="incomplete"), "coverage": LACKING},
            "not all could be compared; checked: 40% of",
        ),
        (
            "frozen-base",
            {
                "integrity": samples.integrity(frozen_base="not in the file"),
                "claims_frozen": False,
                "coverage": samples.bare(),
            },
            "no tensor outside the head could be compared; checked: none of the base's",
        ),
        (
            "finite",
            {"integrity": samples.integrity(nonfinite={"w": 7})},
            "7 values are not, first in w",
        ),
        ("range=0.99:1.02", {}, "range=0.99:1.02 failed for c: z reaches from 0.9875 to 1.0123"),
        ("range=0.9:1", {}, "z reaches"),
        ("range=0.9:1.1", {"vectors": None}, "it has no scaling vectors"),
        (
            "range=0.9:1.1",
            {"vectors": samples.vectors(left_out=("m",), total=None)},
            "the scaling of m is not finite; checked: ",
        ),
        ("regime", left("weakly"), "the verdict is 'weakly'"),
        ("regime", left("undecided"), "'undecided'"),
        ("regime", {"kernels": AuditedKernels("degree unknown")}, "not measured: degree unknown"),
        ("regime", {"kernels": None}, "not measured: no --task was given"),
    ],
)
def test_what_is_wrong_or_cannot_be_checked_fails(rule, changes, said):
    (line,) = fails(rule, **changes)
    assert said in line


def test_an_adapter_without_base_weights_has_not_thawed_any():
    assert fails("frozen-base", integrity=samples.integrity(frozen_base="not in the file")) == []


def test_a_base_in_another_precision_that_equals_it_rounded_is_frozen():
    assert fails("frozen-base", integrity=samples.integrity(rounded=12)) == []


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
