"""Every rule of `findings`: what it says, and that it keeps silent otherwise."""

import math

import pytest

from ntk_propulsion.auditing.checkpoint import DtypeChange, Kind, Promise, Tie
from ntk_propulsion.auditing.coverage import Part
from ntk_propulsion.auditing.findings import RULES, SEVERITIES, findings
from ntk_propulsion.propulsion.statistics import Moved
from tests.auditing import samples
from tests.auditing.tuned import rules


def integrity(**changes):
    return {"integrity": samples.integrity(**changes)}


def total(**changes):
    return {"vectors": samples.vectors(total=samples.statistics("total", "total", **changes))}


def regime(verdict):
    return {"kernels": samples.kernels(regime=samples.regime(kernel_regime=verdict))}


LACKING = Part(8, 38, 400, 1000)
SAID = [
    (
        "finite",
        integrity(nonfinite={"w": 2, "b": 1}),
        "3 values in 2 tensors are NaN or infinite, first in w",
    ),
    (
        "frozen-base",
        {"integrity": samples.thawed()},
        "1 of its tensors differ, most layer.0.output.dense.weight (by 25% of its norm)",
    ),
    (
        "promises",
        {"promises": (Promise("rank", 8, (2,), False, "says 8, has 2"),)},
        "not what the configuration promises: says 8, has 2",
    ),
    ("missing", {"integrity": samples.lacking()}, "3 tensors of the base are not in the file"),
    ("unknown", integrity(unknown=("x.y", "z")), "2 keys fit nothing, e.g. x.y"),
    ("identical", {"kind": Kind("identical", "the base itself")}, "nothing was tuned"),
    (
        "ties",
        integrity(ties=(Tie(("a", "b"), "broken"),)),
        "tensors that are one in the base differ: a and b",
    ),
    (
        "dead",
        total(n=1000, dead=1, dead_neurons=(Moved("m", 3, 0.002),)),
        "1 neuron of 1,000 are all but switched off, first neuron 3 of m (z = 0.00200)",
    ),
    ("degree", {"degree": None}, "gains would reach from 0.980 to 1.01 at degree 1, from 0.500 to"),
    ("regime-left", regime("not"), "the training of the scaling vectors left the kernel regime: "),
    ("regime-left", regime("weakly"), "left the kernel regime in part"),
    (
        "merged",
        {"kind": Kind("low rank", "low-rank updates merged")},
        "a plain model by its keys, by its numbers low-rank updates merged",
    ),
    (
        "biases",
        integrity(only_biases=True, undeclared_count=2),
        "2 biases of the base were trained too",
    ),
    (
        "range",
        total(share_in_range=0.9),
        "10.0% of z lie outside the paper's [0.98, 1.02], from 0.9875 to 1.012 (gains at degree 5",
    ),
    ("signs", total(sign_changes=1), "1 entry of z are negative: an odd degree turns"),
    ("signs", {"degree": 4} | total(sign_changes=2), "2 entries of z are negative: an even degree"),
    (
        "outliers",
        total(n=32, outliers=3, furthest=(Moved("m", 7, 1.5),)),
        "3 entries of z stand out by a robust z-score (furthest: neuron 7 of m, z = 1.500)",
    ),
    (
        "precision",
        integrity(dtypes=(DtypeChange("float32", "bfloat16", 4),)),
        "stored in another precision than the base: 4 from float32 to bfloat16",
    ),
    ("learned", {}, "accuracy on the kernels' 4 examples went from 0.500 to 0.750"),
    ("regime", {}, "stayed in the kernel regime: linearization error 0.0310, feature drift 0.0620"),
    ("regime", regime("undecided"), "moved too little for the precision"),
    ("inside", {}, "100.0% of z lie in the paper's [0.98, 1.02] (gains at degree 5 from 0.939"),
    (
        "share",
        {},
        "a Propulsion explains by construction 67% of the update of 2 layers with 32 numbers; "
        "chance is 3.0%, the closest update of rank 1 30% with 96",
    ),
    (
        "share",
        {"updates": samples.updates(total=None, reason="no layer changed")},
        "how much of it is a Propulsion cannot be said: no layer changed",
    ),
    (
        "moved",
        {"claims_frozen": False, "integrity": samples.thawed()},
        "1 of 38 tensors differ from the base, most layer.0.output.dense.weight (by 25%",
    ),
    ("frozen", {}, "the base is frozen: 38 tensors equal the base's to the bit"),
    (
        "frozen",
        {"coverage": samples.bare()}
        | integrity(frozen_base="not in the file", changed=2, declared=("a", "b")),
        "base not in the file: nothing to compare; it comes with 2 of its tensors trained",
    ),
    ("head", integrity(head="changed"), "head: changed"),
    ("sound", {}, "every value of the file is finite"),
    (
        "another",
        {"kind": Kind("another model", "another model")},
        "the base is not what it was tuned from, it seems: another model",
    ),
    (
        "huge",
        {"updates": samples.updates(total=samples.together(relative_norm=840.83))},
        "the update of all of the changed layers' parameters (2 layers) is 841 times the norm",
    ),
    (
        "resized",
        {"coverage": samples.coverage(rows_added=3, rows_dropped=1)},
        "tables of the base have 3 rows added and 1 row dropped: what both hold was compared",
    ),
    (
        "held-base",
        {"kind": Kind("adapter", "a PEFT adapter")},
        "not an adapter's numbers alone: the file holds all of the base's parameters (38 tensors)",
    ),
    (
        "identical",
        {"kind": Kind("part", "a part"), "coverage": samples.coverage(encoder=LACKING)},
        "nothing that could be compared was tuned: 40% of the base's parameters (8 of 38 tensors)",
    ),
]


@pytest.mark.parametrize(("rule", "changes", "said"), SAID, ids=[rule for rule, *_ in SAID])
def test_a_rule_says_what_is_so(rule, changes, said):
    assert said in rules(samples.checkpoint(**changes))[rule].words


def test_every_rule_is_among_those_tested():
    assert {rule for rule, *_ in SAID} == {rule.name for rule in RULES}


def test_a_sound_propulsion_is_only_good_to_know():
    assert {each.severity for each in samples.checkpoint().findings} == {"good to know"}


def test_the_gravest_come_first_and_each_says_when():
    found = findings(samples.checkpoint(**integrity(nonfinite={"w": 1}, unknown=("x",))))
    ranks = [SEVERITIES.index(each.severity) for each in found]
    assert ranks == sorted(ranks)
    assert [each.rule for each in found[:2]] == ["finite", "unknown"]
    assert all(each.when for each in found)


def test_a_base_of_which_only_biases_moved_is_no_broken_one():
    found = rules(samples.checkpoint(integrity=samples.integrity(
        frozen_base="refuted", only_biases=True, undeclared=("b.bias",), undeclared_count=1
    )))  # fmt: skip
    assert "biases" in found
    assert "frozen-base" not in found


def test_numbers_that_are_not_known_are_dashes():
    found = rules(samples.checkpoint(**total(share_in_range=0.5, gain_min=None, gain_max=math.inf)))
    assert "gains at degree 5 from — to —" in found["range"].words
