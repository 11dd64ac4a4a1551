import copy

import pytest

from ntk_propulsion.report.claims import FAILS, HOLDS, NOT_TESTABLE, UP_TO_SCALE, claims, verdict_on


def distance(shape, raw, low=None, high=None):
    return {"metrics": {
        "best_scale_error": {"value": shape, "low": low, "high": high},
        "relative_frobenius": {"value": raw, "low": None, "high": None},
    }}  # fmt: skip


def by_id(results):
    return {row["id"]: row for row in claims(results)}


@pytest.mark.parametrize(
    ("distances", "verdict"),
    [
        ([distance(0.1, 0.2)], HOLDS),
        ([distance(0.1, 0.96)], UP_TO_SCALE),
        ([distance(0.5, 0.96)], FAILS),
        ([distance(0.25, 0.96, 0.2, 0.4)], NOT_TESTABLE),
        ([distance(0.1, 0.2), distance(0.5, 0.5)], FAILS),
        ([distance(0.1, 0.2), distance(0.1, 0.9)], UP_TO_SCALE),
        ([distance(0.1, 0.2), None], NOT_TESTABLE),
        ([], NOT_TESTABLE),
    ],
)
def test_verdicts_follow_the_written_rule(distances, verdict):
    assert verdict_on(distances) == verdict


def test_every_claim_is_complete(classification):
    rows = claims(classification.results)
    assert [row["id"] for row in rows] == ["T1", "T3", "T4", "T5", "A4", "E1"]
    for row in rows:
        assert set(row) == {"id", "statement", "measured", "expected", "verdict", "source"}
        assert all(isinstance(value, str) and value for value in row.values())
        assert row["verdict"] in (HOLDS, UP_TO_SCALE, FAILS, NOT_TESTABLE)


def test_kernels_of_one_shape_and_two_scales_hold_up_to_a_scale(classification, regression):
    assert by_id(classification.results)["T1"]["verdict"] == UP_TO_SCALE
    assert by_id(regression.results)["T1"]["verdict"] == FAILS
    assert "stsb" in by_id(regression.results)["T5"]["measured"]


def test_t1_asks_for_the_kernel_without_the_head_too(classification):
    results = copy.deepcopy(classification.results)
    metrics = results["distances"][1]["metrics"]
    metrics["cka"] = {"value": 0.2, "low": 0.1, "high": 0.3}
    rows = by_id(results)
    assert rows["T1"]["verdict"] == FAILS
    assert rows["T5"]["verdict"] == UP_TO_SCALE


def test_an_undecided_interval_asks_for_more_examples(classification):
    results = copy.deepcopy(classification.results)
    results["distances"][0]["metrics"]["cka"] = {"value": 0.96, "low": 0.9, "high": 0.99}
    row = by_id(results)["T5"]
    assert row["verdict"] == NOT_TESTABLE
    assert "draw more examples" in row["measured"]


@pytest.mark.parametrize(
    ("share", "steps", "verdict"), [(0.5, 60, FAILS), (1.0, 60, HOLDS), (1.0, 10, NOT_TESTABLE)]
)
def test_z_can_only_confirm_its_range_where_it_could_have_left(
    classification, share, steps, verdict
):
    results = copy.deepcopy(classification.results)
    results["scaling_vectors"][-1]["share_in_range"] = share
    results["training"][1]["steps"] = steps  # at learning rate 0.001: z - 1 up to 0.06 or 0.01
    assert by_id(results)["A4"]["verdict"] == verdict


def test_without_training_its_claims_are_not_testable(classification):
    results = {**classification.results, "training": [], "drift": [], "scaling_vectors": []}
    rows = by_id(results)
    assert {rows[i]["verdict"] for i in ("T4", "A4", "E1")} == {NOT_TESTABLE}
    assert rows["T4"]["measured"] == "not measured"


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
    regimes = [
        {"method": method, "step": 60, "learning_rate": 1e-3, "linearization_error": 0.2,
         "linearization_least": 0.1, "linearization_most": 0.3, "feature_drift": 0.4,
         "drift_least": 0.2, "drift_most": 0.5, "linearization": level, "fixed_features": level,
         "kernel_regime": level}
        for method, level in zip(("full", "propulsion", "lora"), (*levels,), strict=False)
    ]  # fmt: skip
    rows = by_id({**classification.results, "regimes": regimes})
    assert (rows["T3"]["verdict"], rows["T4"]["verdict"]) == (verdict, verdict)
    assert "0.200 (examples 0.100 to 0.300) after 60 steps" in rows["T3"]["measured"]
    assert by_id(classification.results)["T3"]["measured"] == "no trajectory was recorded"


def test_a_changed_kernel_is_not_a_fixed_one(classification):
    assert by_id(classification.results)["T4"]["verdict"] == HOLDS
    results = copy.deepcopy(classification.results)
    drift = next(d for d in results["drift"] if d["method"] == d["tuning"] == "propulsion")
    drift["metrics"]["best_scale_error"] = {"value": 0.7, "low": 0.6, "high": 0.8}
    assert by_id(results)["T4"]["verdict"] == FAILS
