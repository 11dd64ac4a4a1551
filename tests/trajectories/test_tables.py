import pytest

from ntk_propulsion.theory.distances import leading
from ntk_propulsion.trajectories.tables import (
    course_distances,
    course_points,
    regime_summaries,
)
from tests.trajectories.recorded import recorded

METHODS = ("full", "propulsion")


@pytest.fixture(scope="module")
def trajectories():
    return {method: recorded(method) for method in METHODS}


def test_courses_are_what_the_tables_say_of_all_examples(trajectories):
    points = course_points(trajectories)
    drifts = {(p.method, p.step): p.value for p in points if p.quantity == "feature_drift"}
    for method, trajectory in trajectories.items():
        steps, values = trajectory.series("feature_drift")
        assert [drifts[method, step] for step in steps] == values.tolist()
    assert not [point for point in points if point.quantity == "loss"]
    wanted = [q for t in trajectories.values() for q in t.table() if q.example is None]
    assert len(points) == len([q for q in wanted if q.quantity != "loss"])


def test_distances_between_trainings_need_a_reference(trajectories):
    assert course_distances({"propulsion": trajectories["propulsion"]}) == ()
    distances = course_distances(trajectories)
    assert {each.quantity for each in distances} == {*leading()}
    assert {each.kernel for each in distances} == {"own-full", "full"}
    assert {each.method for each in distances} == {"propulsion"}


def test_a_regime_is_of_the_last_point_and_has_the_range_over_examples(trajectories):
    summaries = regime_summaries(trajectories)
    for found, trajectory in zip(summaries, trajectories.values(), strict=True):
        last = trajectory.points[-1].measures
        assert found.feature_drift == last.feature_drift
        assert found.drift_least == last.drift_per_example.min()
        assert found.drift_most == last.drift_per_example.max()
        assert found.kernel_regime == trajectory.regime().kernel_regime
