"""The verdict on each question, and the whole in one sentence."""

from dataclasses import replace

import pytest

from ntk_propulsion.auditing.checkpoint import AuditedKernels, Kind, Promise
from ntk_propulsion.auditing.verdicts import answer, sentence, verdicts
from tests.auditing import samples


def integrity(**changes):
    return {"integrity": samples.integrity(**changes)}


def verdict(name, **changes):
    return next(each for each in verdicts(samples.checkpoint(**changes)) if each.id == name)


def test_every_question_is_answered_in_one_order():
    names = [each.id for each in samples.checkpoint().verdicts]
    assert names == [
        *("kind", "frozen-base", "finite", "promises", "ties", "range"),
        *("propulsion-share", "regime"),
    ]


@pytest.mark.parametrize(
    ("name", "changes", "short", "words"),
    [
        ("kind", {}, "propulsion", "a Propulsion of degree 5"),
        ("frozen-base", {}, "confirmed", "0 of 38 tensors outside the head differ"),
        (
            "frozen-base",
            {"integrity": replace(samples.thawed(), changed=3, undeclared_count=2)},
            "refuted",
            "3 of 38 tensors outside the head differ, 2 of them undeclared: layer.0.output.dense",
        ),
        (
            "frozen-base",
            integrity(frozen_base="not in the file") | {"coverage": samples.bare()},
            "not in the file",
            "base not in the file: nothing to compare",
        ),
        ("finite", {}, "yes", "0 values NaN or infinite"),
        ("finite", integrity(nonfinite={"w": 1}), "no", "1 value NaN or infinite"),
        ("promises", {}, "kept", "it says rank 2, the factors have 2"),
        ("promises", {"promises": ()}, "not checked", "no configuration promises anything"),
        (
            "promises",
            {"promises": (Promise("a", 1, 1, True, "good"), Promise("b", 1, 2, False, "bad"))},
            "broken",
            "bad",
        ),
        (
            "promises",
            {"promises": (Promise("a", None, None, None, "not checked: no class"),)},
            "not checked",
            "not checked: no class",
        ),
        ("ties", {}, "kept", "0 of 1 tie broken"),
        ("ties", integrity(ties=()), "none", "the base ties nothing"),
        (
            "range",
            {},
            "holds",
            "100.0% of z in [0.98, 1.02], from 0.9875 to 1.0123; gains z**5 from 0.939 to 1.06, "
            "75% of them in that range",
        ),
        ("range", {"vectors": None}, "not applicable", "no scaling vectors, or none that is"),
        ("propulsion-share", {}, "67%", "67% of the update of 2 layers (chance 3.0%)"),
        (
            "propulsion-share",
            {"updates": samples.updates(total=None, reason="no layer changed")},
            "not applicable",
            "no layer changed",
        ),
        (
            "regime",
            {},
            "holds",
            "linearization error 0.0310, feature drift 0.0620, of the scaling vectors",
        ),
        ("regime", {"kernels": None}, "not measured", "no --task was given"),
        ("regime", {"kernels": AuditedKernels("a reason")}, "not measured", "a reason"),
        (
            "regime",
            {"updates": samples.updates(unmergeable="LILY mixes")},
            "not applicable",
            "LILY mixes",
        ),
    ],
)
def test_a_question_is_answered_short_and_in_words(name, changes, short, words):
    found = verdict(name, **changes)
    assert found.verdict == short
    assert found.words.startswith(words)


def test_a_range_that_a_single_z_leaves_does_not_hold():
    vectors = samples.vectors(total=samples.statistics("total", "total", share_in_range=0.999))
    assert verdict("range", vectors=vectors).verdict == "does not hold"


def test_an_unknown_degree_is_said_once_wherever_it_matters():
    found = {each.id: each.words for each in samples.checkpoint(degree=None).verdicts}
    for name in ("kind", "range", "propulsion-share", "regime"):
        assert found[name].count("degree unknown") == 1, name
    assert not any("degree unknown" in found[name] for name in ("finite", "ties", "promises"))


def test_a_sentence_says_what_it_is_whether_frozen_and_what_it_learned():
    assert sentence(samples.checkpoint()) == (
        "c is a Propulsion of degree 5; its base is frozen; 67% of its update is a Propulsion; it "
        "stayed in the kernel regime."
    )
    plain = samples.checkpoint(
        kind=Kind("full", "a full fine-tuning"),
        claims_frozen=False,
        kernels=None,
        integrity=samples.integrity(changed=38, nonfinite={"w": 1}),
    )
    assert sentence(plain) == (
        "c is a full fine-tuning; 38 of the 38 tensors outside the head that both hold differ from "
        "the base; 67% of its update is a Propulsion; some of its values are NaN or infinite."
    )


def test_the_answer_is_a_sentence_each_and_the_three_gravest_findings_of_all():
    good = samples.checkpoint("good")
    bad = samples.checkpoint("bad", integrity=samples.integrity(nonfinite={"w": 1}))
    first, *rest = answer([good, bad])
    assert first == f"{sentence(good)} {sentence(bad)}"
    assert len(rest) == 3
    assert rest[0] == "1. Broken: bad: 1 value in 1 tensor are NaN or infinite, first in w."
    alone = answer([bad])
    assert alone[1] == "1. Broken: 1 value in 1 tensor are NaN or infinite, first in w."
