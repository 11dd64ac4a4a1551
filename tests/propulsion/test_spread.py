"""How numbers spread, against their definitions."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ntk_propulsion.propulsion import (
    scaling_statistics,
)
from ntk_propulsion.propulsion.spread import effective_number, gini, robust_scores
from tests.propulsion.deviations import SEEDS, near_one


@given(SEEDS)
def test_robust_scores_follow_their_definition(seed):
    z = near_one(seed, n=31)
    scores, median, spread = robust_scores(z)
    mad = np.median(abs(z.numpy() - np.median(z)))
    np.testing.assert_allclose(scores, (z.numpy() - np.median(z)) / (1.4826 * mad))
    assert median == np.median(z)
    assert spread == pytest.approx(1.4826 * mad)


@given(SEEDS, st.floats(0.1, 10), st.floats(-5, 5))
def test_robust_scores_see_neither_scale_nor_shift(seed, scale, shift):
    z = near_one(seed)
    np.testing.assert_allclose(
        robust_scores(scale * z + shift)[0], robust_scores(z)[0], rtol=1e-6, atol=1e-6
    )


def test_gaussian_values_have_a_spread_of_their_standard_deviation():
    assert robust_scores(near_one(0, n=100_000))[2] == pytest.approx(0.01, rel=0.02)


@given(st.integers(1, 30), st.floats(1e-6, 1e6))
def test_concentration_has_its_extremes(n, size):
    equal, one = torch.full((n,), size).double(), torch.zeros(n).double()
    one[n // 2] = size
    assert effective_number(equal) == pytest.approx(n)
    assert effective_number(-one) == pytest.approx(1)
    assert gini(equal) == pytest.approx(0, abs=1e-9)
    assert gini(one) == pytest.approx(1 - 1 / n)
    assert effective_number(0 * one) == gini(0 * one) == 0


@given(SEEDS, st.integers(1, 30), st.floats(1e-3, 1e3))
def test_concentration_follows_its_definition_whatever_order_and_scale(seed, n, scale):
    rng = np.random.default_rng(seed)
    deviation = rng.normal(size=n)
    sizes = abs(deviation)
    pairs = abs(sizes[:, None] - sizes[None]).sum() / (2 * n * sizes.sum())
    other = torch.tensor(scale * rng.permutation(deviation))
    assert gini(other.abs()) == pytest.approx(pairs)
    expected = np.sum(deviation**2) ** 2 / np.sum(deviation**4)
    assert effective_number(other) == pytest.approx(expected)
    row = scaling_statistics({"x": torch.tensor(1 + deviation)})[0]
    assert (row.gini, row.effective_moved) == (pytest.approx(pairs), pytest.approx(expected))
