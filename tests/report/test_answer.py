import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntk_propulsion.report.answer import CLOSE, LEVELS, answer, error_of, level, shape_error
from ntk_propulsion.theory.estimate import Estimate


def set_metrics(made, value, *, where=None, **ends):
    """Return a copy whose start distances have one shape error, as alignment and as CKA."""
    similarity = math.sqrt(1 - value**2)
    changed = {
        "best_scale_error": Estimate(**{"value": value, "low": value, "high": value} | ends),
        "cka": Estimate(similarity, similarity, similarity),
    }
    return made.changed(
        distances=tuple(
            replace(d, metrics={**d.metrics, **changed}) if where in (None, d.part) else d
            for d in made.results.distances
        )
    )


@given(st.floats(0, 1))
def test_an_error_and_the_similarity_it_amounts_to_agree(error):
    assert error_of(math.sqrt(1 - error**2)) == pytest.approx(error, abs=1e-7)


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_larger_error_never_sounds_closer(a, b):
    words = [word for _, word in LEVELS]
    if a <= b:
        assert words.index(level(a)) <= words.index(level(b))


def test_shape_error_is_the_worse_of_the_two_numbers():
    metrics = {"best_scale_error": Estimate(0.1, 0.05, 0.2), "cka": Estimate(0.8, 0.6, 1.0)}
    assert shape_error(metrics) == pytest.approx((0.05, 0.8))
    assert shape_error({}) is None
    assert shape_error({"cka": Estimate(None)}) is None


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (0.05, "nearly the same"),
        (0.2, "close"),
        (0.5, "related but not close"),
        (0.9, "different"),
    ],
)
def test_the_word_follows_the_limits(classification, error, word):
    first = answer(set_metrics(classification, error).results)[0]
    assert first.endswith(f"are {word}, with and without the head.")


def test_the_word_goes_by_the_intervals_unfavourable_end(classification):
    first = answer(set_metrics(classification, 0.2, high=0.9).results)[0]
    assert "are different" in first


def test_a_difference_that_the_head_makes_is_told(classification):
    made = set_metrics(classification, 0.05, where="all")
    first = answer(set_metrics(made, 0.9, where="without_head").results)[0]
    assert "nearly the same as a whole; without the head, they are different." in first


def test_numbers_come_with_their_intervals(classification):
    text = answer(classification.results)[1]
    cka = classification.results.distances[1].metrics["cka"]
    assert f"CKA {cka.value:.3f} [{cka.low:.3f}, {cka.high:.3f}]" in text
    assert "without the head" in text


def test_the_raw_error_is_explained_by_the_scale(classification):
    text = answer(classification.results)[2]
    scale = classification.results.distances[0].metrics["best_scale"].value
    assert "smaller" in text
    assert f"already give {abs(1 - 1 / scale):.3f}" in text


@pytest.mark.parametrize(("scale", "said"), [(1.1, "as it stands"), (0.01, "larger"), (-1.0, "")])
def test_scale_is_told_as_it_is(classification, scale, said):
    first, *others = classification.results.distances
    metrics = {**first.metrics, "best_scale": Estimate(scale)}
    made = classification.changed(distances=(replace(first, metrics=metrics), *others))
    text = " ".join(answer(made.results))
    assert said in text
    assert ("says little" in text) == (scale == 0.01)


def test_worst_modules_and_what_is_not_scaled_are_named(classification):
    text = answer(classification.results)[3]
    modules = classification.results.per_module
    worst = min(
        (m for m in modules if m.alignment and m.trace_share_full >= 0.005),
        key=lambda m: m.alignment,
    )
    assert f"{worst.module} ({worst.alignment:.3f})" in text
    missed = sum(m.trace_share_full for m in modules if m.alignment is None)
    assert f"{100 * missed:.0f}% of K_F's trace" in text


def test_a_module_without_weight_in_the_kernel_is_not_blamed(classification):
    first, *others = classification.results.per_module
    assert first.alignment
    light = replace(first, alignment=0.01, trace_share_full=0.0001)
    made = classification.changed(per_module=(light, *others))
    assert light.module not in answer(made.results)[3]


def test_training_drift_and_scaling_vectors_are_told(classification):
    text = " ".join(answer(classification.results))
    assert "60 steps of full fine-tuning took accuracy from 0.712 to 0.801" in text
    total = classification.results.scaling_vectors[-1]
    assert f"{100 * total.share_in_range:.0f}% of the 7,680 scaling factors" in text
    assert f"{total.gain_min:.3f}" in text


def test_without_training_nothing_is_said_of_it(classification):
    results = classification.changed(training=(), drift=(), scaling_vectors=()).results
    text = " ".join(answer(results))
    assert "steps" not in text
    assert "scaling factors" not in text
    assert len(answer(results)) == 4


def test_other_tunings_are_ranked_without_the_head(classification):
    distances = classification.results.distances
    metrics = {**distances[1].metrics, "cka": Estimate(0.999)}
    other = replace(distances[1], tuning="random_subset", metrics=metrics)
    text = answer(classification.changed(distances=(*distances, other)).results)[-1]
    assert "without the head: random subset 0.999, Propulsion 0.98" in text


def test_without_distances_it_says_so(classification):
    results = classification.changed(distances=(), per_module=()).results
    assert answer(results)[0] == "The run measured no distance between the two kernels."


def test_close_is_an_error_below_a_third():
    assert level(CLOSE) == "close"
    assert level(CLOSE + 1e-9) != "close"
