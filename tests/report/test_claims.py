from dataclasses import astuple, replace

import pytest

from ntk_propulsion.report.claims import FAILS, HOLDS, NOT_TESTABLE, UP_TO_SCALE, claims, verdict_on
from ntk_propulsion.theory.estimate import Estimate
from ntk_propulsion.trajectories.tables import RegimeSummary


def distance(shape, raw, low=None, high=None):
    return {
        "best_scale_error": Estimate(shape, low, high),
        "relative_frobenius": Estimate(raw),
    }


def by_id(made):
    return {claim.id: claim for claim in claims(made.results)}


def with_metric(rows, at, name, measured):
    """Return rows of which one has another distance of this name."""
    changed = replace(rows[at], metrics={**rows[at].metrics, name: measured})
    return (*rows[:at], changed, *rows[at + 1 :])


@pytest.mark.parametrize(
    ("distances", "verdict"),
    [
        ([distance(0.1, 0.2)], HOLDS),
        ([distance(0.1, 0.96)], UP_TO_SCALE),
        ([distance(0.5, 0.96)], FAILS),
        ([distance(0.25, 0.96, 0.2, 0.4)], NOT_TESTABLE),
        ([distance(0.1, 0.2), distance(0.5, 0.5)], FAILS),
        ([distance(0.1, 0.2), distance(0.1, 0.9)], UP_TO_SCALE),
        ([distance(0.1, 0.2), {}], NOT_TESTABLE),
        ([], NOT_TESTABLE),
    ],
)
def test_verdicts_follow_the_written_rule(distances, verdict):
    assert verdict_on(distances) == verdict


def test_every_claim_is_complete(classification):
    found = claims(classification.results)
    assert [claim.id for claim in found] == ["T1", "T3", "T4", "T5", "A4", "E1"]
    for claim in found:
        assert all(isinstance(value, str) and value for value in astuple(claim))
        assert claim.verdict in (HOLDS, UP_TO_SCALE, FAILS, NOT_TESTABLE)


def test_kernels_of_one_shape_and_two_scales_hold_up_to_a_scale(classification, regression):
    assert by_id(classification)["T1"].verdict == UP_TO_SCALE
    assert by_id(regression)["T1"].verdict == FAILS
    assert "stsb" in by_id(regression)["T5"].measured


def test_t1_asks_for_the_kernel_without_the_head_too(classification):
    distances = with_metric(classification.results.distances, 1, "cka", Estimate(0.2, 0.1, 0.3))
    found = by_id(classification.changed(distances=distances))
    assert found["T1"].verdict == FAILS
    assert found["T5"].verdict == UP_TO_SCALE


def test_an_undecided_interval_asks_for_more_examples(classification):
    distances = with_metric(classification.results.distances, 0, "cka", Estimate(0.96, 0.9, 0.99))
    claim = by_id(classification.changed(distances=distances))["T5"]
    assert claim.verdict == NOT_TESTABLE
    assert "draw more examples" in claim.measured


@pytest.mark.parametrize(
    ("share", "steps", "verdict"), [(0.5, 60, FAILS), (1.0, 60, HOLDS), (1.0, 10, NOT_TESTABLE)]
)
def test_z_can_only_confirm_its_range_where_it_could_have_left(
    classification, share, steps, verdict
):
    *modules, total = classification.results.scaling_vectors
    full, propulsion = classification.results.training
    made = classification.changed(
        scaling_vectors=(*modules, replace(total, share_in_range=share)),
        training=(full, replace(propulsion, steps=steps)),  # z - 1 up to 0.06 or 0.01
    )
    assert by_id(made)["A4"].verdict == verdict


def test_without_training_its_claims_are_not_testable(classification):
    found = by_id(classification.changed(training=(), drift=(), scaling_vectors=()))
    assert {found[i].verdict for i in ("T4", "A4", "E1")} == {NOT_TESTABLE}
    assert found["T4"].measured == "not measured"


@pytest.mark.parametrize(
    ("levels", "verdict"),
    [
        (("holds", "holds"), HOLDS),
        (("holds", "weakly"), FAILS),
        (("undecided", "not"), FAILS),
        (("undecided", "holds"), NOT_TESTABLE),
        (("holds",), NOT_TESTABLE),
    ],
)
def test_recorded_trainings_decide_the_kernel_regime(classification, levels, verdict):
    regimes = tuple(
        RegimeSummary(method, 60, 1e-3, 0.2, 0.1, 0.3, 0.4, 0.2, 0.5, level, level, level)
        for method, level in zip(("full", "propulsion", "lora"), levels, strict=False)
    )
    found = by_id(classification.changed(regimes=regimes))
    assert (found["T3"].verdict, found["T4"].verdict) == (verdict, verdict)
    assert "0.200 (examples 0.100 to 0.300) after 60 steps" in found["T3"].measured
    assert by_id(classification)["T3"].measured == "no trajectory was recorded"


def test_a_changed_kernel_is_not_a_fixed_one(classification):
    assert by_id(classification)["T4"].verdict == HOLDS
    drift = classification.results.drift
    own = next(i for i, d in enumerate(drift) if d.method == d.tuning == "propulsion")
    moved = with_metric(drift, own, "best_scale_error", Estimate(0.7, 0.6, 0.8))
    assert by_id(classification.changed(drift=moved))["T4"].verdict == FAILS
