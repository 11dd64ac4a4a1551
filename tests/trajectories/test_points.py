"""A point's kernels and numbers by their names."""

from __future__ import annotations

import numpy as np

from ntk_propulsion.trajectories.points import Recorded
from tests.trajectories.recorded import recorded


def test_a_points_own_kernel_is_that_after_training_and_the_other_is_of_all_weights():
    point = recorded("propulsion").points[-1]
    assert point.own is point.measures.after
    assert point.kernels == {"own": point.own, "full": point.full}
    assert point.own.num_parameters < point.full.num_parameters


def test_totals_are_the_mean_squares_of_examples_weighted_by_their_own_scale():
    """|J_t - J_0|**2 and |J_0|**2 are sums over examples, and so are those of the outputs."""
    start, *_, last = recorded().points
    each = last.per_example
    assert each.keys() == {"feature_drift", "linearization_error", "feature_velocity"}
    size = start.own.matrix.diagonal().reshape(4, -1).sum(1).numpy()
    change = np.square(last.outputs - start.outputs).sum(1)
    for name, weight, total in (
        ("feature_drift", size, last.measures.feature_drift),
        ("linearization_error", change, last.measures.linearization_error),
        ("feature_velocity", size, last.feature_velocity),
    ):
        mean = np.average(np.square(each[name]), weights=weight)
        np.testing.assert_allclose(np.sqrt(mean), total, rtol=1e-9, err_msg=name)


def test_a_training_without_seen_steps_has_no_losses_of_another():
    one, two = (Recorded("full", {}, None, ()) for _ in range(2))
    one.losses.append((1, 0.5))
    assert two.losses == []
