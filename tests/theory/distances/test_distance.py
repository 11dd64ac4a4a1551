"""What every registered distance promises: a new one is held to it by being registered."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntk_propulsion.theory import distances as d
from ntk_propulsion.theory.intervals import bootstrap_intervals
from tests.theory.theory_kernels import example_rows, kernel_pair, kinds, seeds

O = 2  # noqa: E741


def defined(kind):
    return [each for each in d.DISTANCES.values() if kind != "cross" or not each.same_examples]


def value(distance, K, K0):
    return distance.function(K, K0, O)


def changes(distance, before, after):
    """Whether a distance sees what was done to the kernels."""
    return value(distance, *after) != pytest.approx(value(distance, *before), rel=1e-6, abs=1e-9)


@given(seeds, kinds, st.floats(1e-120, 1e120), st.floats(1e-120, 1e120))
def test_a_factor_is_seen_by_those_that_say_so(seed, kind, s, s0):
    K, K0 = kernel_pair(seed, kind)
    for distance in defined(kind):
        if "scale" in distance.ignores:
            scaled = value(distance, s * K, s0 * K0)
            assert scaled == pytest.approx(value(distance, K, K0), abs=1e-12)
        else:
            assert changes(distance, (K, K0), (3 * K, K0))
    best = d.best_scale(s * K, s0 * K0)
    assert best == pytest.approx(d.best_scale(K, K0) * s0 / s)


@given(seeds, kinds)
def test_what_all_examples_share_is_seen_by_those_that_say_so(seed, kind):
    K, K0 = kernel_pair(seed, kind)
    shared = np.random.default_rng(seed).normal(size=(O, O)) + 2
    offset = np.kron(np.ones([size // O for size in K.shape]), shared @ shared.T)
    for distance in defined(kind):
        assert changes(distance, (K, K0), (K + offset, K0)) != ("offset" in distance.ignores)


@given(seeds)
def test_an_examples_similarity_with_itself_is_seen_by_those_that_say_so(seed):
    K, K0 = kernel_pair(seed, "psd")
    own = 10 * np.abs(K).max() * np.kron(np.eye(len(K) // O), np.ones((O, O)))
    for distance in d.DISTANCES.values():
        assert changes(distance, (K, K0), (K + own, K0)) != ("self" in distance.ignores)


@given(seeds, kinds)
def test_the_order_of_examples_is_seen_by_none(seed, kind):
    K, K0 = kernel_pair(seed, kind)
    rng = np.random.default_rng(seed)
    left = rng.permutation(K.shape[0] // O)
    right = left if kind != "cross" else rng.permutation(K.shape[1] // O)
    index = np.ix_(example_rows(left, O), example_rows(right, O))
    for distance in defined(kind):
        assert not changes(distance, (K, K0), (K[index], K0[index]))


@pytest.mark.parametrize("distance", d.DISTANCES.values(), ids=lambda each: each.name)
def test_equal_kernels_have_the_best_value_and_a_factor_of_one(distance):
    K, _ = kernel_pair(1, "psd")
    assert value(distance, K, K) == pytest.approx(1 if distance.best is None else distance.best)


@pytest.mark.parametrize("distance", d.DISTANCES.values(), ids=lambda each: each.name)
def test_every_distance_has_a_name_for_people_and_is_explained_to_them(distance):
    assert d.label(distance.name) == distance.label != ""
    assert d.glossary()[distance.term or distance.label] == distance.meaning


def test_the_direction_of_a_similarity_and_of_an_error():
    assert d.direction("cka") == "1 is best"
    assert d.direction("relative_frobenius") == d.direction("jacobian_change") == "0 is best"
    assert d.label("jacobian_change") == "jacobian change"


@pytest.fixture
def largest_entry():
    """A distance from outside: how the largest entries compare."""

    def ratio(K, K0, outputs):
        return float(np.abs(K0).max() / np.abs(K).max())

    products = d.Products(lambda p, q, r: np.sqrt(r / q))
    yield d.register(
        d.Distance("largest_entry", ratio, "largest entry", "max K0 / max K.", products=products)
    )
    del d.DISTANCES["largest_entry"]


def test_a_registered_distance_is_compared_resampled_and_explained(largest_entry):
    K, K0 = kernel_pair(0, "psd")
    assert d.compare_kernels(K, K0, O)["largest_entry"] == value(largest_entry, K, K0)
    assert bootstrap_intervals(K, K0, O, resamples=20)["largest_entry"].low > 0
    assert d.glossary()["largest entry"] == "max K0 / max K."
