import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analysis.framework import rules
from analysis.framework.rules import FAILS, HOLDS, NOT_TESTABLE, UP_TO_SCALE, Estimate


def about(value, reach=0.0):
    return Estimate(value, value - reach, value + reach)


def test_every_rule_says_when_it_holds_and_is_kept_under_its_own_id():
    for name, rule in rules.RULES.items():
        assert rule.id == name
        assert "olds" in rule.rule or "As T" in rule.rule
        assert all((rule.statement, rule.source, rule.study))


@pytest.mark.parametrize(
    ("raw", "shape", "expected"),
    [
        (about(0.1), about(0.1), HOLDS),
        (about(0.9), about(0.1), UP_TO_SCALE),
        (about(0.9), about(0.25, 0.2), NOT_TESTABLE),
        (about(0.9), about(0.5, 0.1), FAILS),
        (about(0.28, 0.1), about(0.1), UP_TO_SCALE),
    ],
)
def test_kernels_are_equal_only_if_even_the_far_end_of_the_interval_is_close(raw, shape, expected):
    assert rules.equality(raw, shape) == expected


def test_the_worst_verdict_wins_and_none_is_not_testable():
    assert rules.worst([HOLDS, UP_TO_SCALE, NOT_TESTABLE, FAILS]) == FAILS
    assert rules.worst([HOLDS, UP_TO_SCALE]) == UP_TO_SCALE
    assert rules.worst([]) == NOT_TESTABLE


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=8))
def test_a_paired_interval_is_scipys(differences):
    found = rules.paired(differences)
    if np.ptp(differences) < 1e-6:
        return
    expected = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    wider = rules.paired(differences, comparisons=4)
    assert wider.low < found.low < found.high < wider.high


def test_one_pair_decides_nothing():
    found = rules.paired([0.3])
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert rules.all_ahead({"other": found}) == NOT_TESTABLE
    assert rules.within({"other": found}, 1.0) == NOT_TESTABLE


def test_a_champion_must_be_ahead_of_all_and_clearly_of_one():
    assert rules.all_ahead({"a": about(0.1, 0.05), "b": about(0.01, 0.2)}) == HOLDS
    assert rules.all_ahead({"a": about(0.1, 0.2), "b": about(0.01, 0.2)}) == NOT_TESTABLE
    assert rules.all_ahead({"a": about(0.1, 0.05), "b": about(-0.01, 0.2)}) == NOT_TESTABLE
    assert rules.all_ahead({"a": about(0.1, 0.05), "b": about(-0.3, 0.2)}) == FAILS
    assert rules.all_ahead({}) == NOT_TESTABLE


def test_equivalence_needs_the_whole_interval_inside_the_margin():
    assert rules.within({"a": about(0.01, 0.005)}, 0.02) == HOLDS
    assert rules.within({"a": about(0.01, 0.05)}, 0.02) == NOT_TESTABLE
    assert rules.within({"a": about(-0.1, 0.05)}, 0.02) == FAILS
    assert rules.within({"a": about(-0.1, 0.05)}, 0.02, upper_only=True) == NOT_TESTABLE


def test_an_effect_of_columns_is_that_of_the_textbook():
    """One-way analysis with 2 columns and blocks is the paired t-test."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(6, 2)) + np.array([0.0, 0.8])
    expected = stats.ttest_rel(values[:, 0], values[:, 1]).pvalue
    assert rules.effect(values) == pytest.approx(expected)


def test_an_effect_without_any_noise_is_not_defined():
    assert math.isnan(rules.effect(np.array([[0.1, 0.3, 0.2], [0.2, 0.4, 0.3]])))
    assert math.isnan(rules.effect(np.array([[0.1, 0.3]])))


def test_effects_are_rarely_found_where_there_are_none():
    rng = np.random.default_rng(1)
    found = [rules.effect(rng.normal(size=(4, 5))) < 0.05 for _ in range(400)]
    assert 0.02 < np.mean(found) < 0.09


def test_a_bound_is_exceeded_only_by_more_failures_than_chance_allows():
    assert not rules.exceeds(60, 1000, 0.05, cells=1)
    assert rules.exceeds(80, 1000, 0.05, cells=1)
    assert not rules.exceeds(80, 1000, 0.05, cells=100_000)
    assert not rules.exceeds(1000, 1000, 1.0, cells=1)


def test_rank_correlation_sees_order_and_refuses_constants_and_rounding():
    x = np.arange(8.0)
    assert rules.predicts(rules.rank_correlation(x, -x)) == HOLDS
    assert rules.predicts(rules.rank_correlation(x, x)) == FAILS
    rounding = 0.3 + 1e-7 * np.arange(8.0)
    assert math.isnan(rules.rank_correlation(rounding, -x).value)
    assert rules.predicts(rules.rank_correlation(rounding, -x)) == NOT_TESTABLE
    assert rules.predicts(rules.rank_correlation([1, 2, 3], [3, 2, 1])) == NOT_TESTABLE
