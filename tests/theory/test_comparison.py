"""Every distance with its interval, and how a comparison reads."""

from __future__ import annotations

import numpy as np
import pytest

from ntk_propulsion.theory.comparison import Comparison, estimate_distances
from ntk_propulsion.theory.distances import compare_kernels
from ntk_propulsion.theory.estimate import Estimate
from ntk_propulsion.theory.intervals import bootstrap_intervals


def pair(examples: int, outputs: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    J, D = rng.normal(size=(2, examples * outputs, 9))
    return (J + 0.3 * D) @ (J + 0.3 * D).T, J @ J.T


def test_estimates_are_the_distances_with_their_bootstrap_intervals() -> None:
    K, K0 = pair(8)
    found = estimate_distances(K, K0, 2, resamples=60, seed=4)
    intervals = bootstrap_intervals(K, K0, 2, resamples=60, seed=4)
    values = compare_kernels(K, K0, 2)
    assert {name: estimate.value for name, estimate in found.items()} == values
    for name, estimate in found.items():
        ends = (intervals[name].low, intervals[name].high) if name in intervals else (None, None)
        assert (estimate.low, estimate.high) == ends
    assert intervals.keys() <= found.keys()


@pytest.mark.parametrize(("examples", "resamples"), [(2, 1000), (8, 0)])
def test_few_examples_and_no_resamples_have_no_intervals(examples: int, resamples: int) -> None:
    found = estimate_distances(*pair(examples), 2, resamples=resamples)
    assert found
    assert all(estimate.low is estimate.high is None for estimate in found.values())


def test_a_comparison_is_read_by_name_and_in_lines() -> None:
    estimates = {"cka": Estimate(0.98765, 0.9, 1.0), "trace_ratio": Estimate(2.0)}
    found = Comparison("propulsion", "full", {**estimates, "best_scale": Estimate(None)})
    assert found["cka"] == Estimate(0.98765, 0.9, 1.0)
    assert list(found) == ["cka", "trace_ratio", "best_scale"]
    assert len(found) == 3
    assert repr(found).splitlines() == [
        "propulsion against full",
        "  cka          0.9877 [0.9, 1]",
        "  trace_ratio  2",
        "  best_scale   undefined",
    ]
    with pytest.raises(KeyError):
        found["kca"]
