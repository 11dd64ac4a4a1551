"""Two trajectories are compared at the steps that both have, and at no other."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntk_propulsion.errors import InputError
from ntk_propulsion.theory.distances import compare_kernels
from ntk_propulsion.trajectories import Trajectory, compare_trajectories
from tests.trajectories.recorded import AT, record, recorded

STEPS = st.sets(st.sampled_from([0, *AT]), min_size=1)


def only(trajectory: Trajectory, steps: set[int]) -> Trajectory:
    """A trajectory without its other points."""
    return replace(trajectory, points=tuple(p for p in trajectory.points if p.step in steps))


def test_comparison_is_of_the_kernels_at_equal_steps():
    ours, theirs = recorded("propulsion"), recorded("full")
    theirs = replace(theirs, points=(theirs.points[0], theirs.points[2]))
    rows = compare_trajectories(ours, theirs)
    assert {row.step for row in rows} == {0, 4}
    assert {(row.method, row.reference) for row in rows} == {("propulsion", "full")}
    p, q = ours.at(4), theirs.at(4)
    pairs = {"own": (p.own, q.own), "full": (p.full, q.full), "own-full": (p.own, q.full)}
    for name, (K, K0) in pairs.items():
        expected = compare_kernels(K, K0, norms=("frobenius",))
        found = {row.quantity: row.value for row in rows if (row.step, row.kernel) == (4, name)}
        assert found == expected
    start = [r.value for r in rows if (r.step, r.kernel) == (0, "full")]
    assert start[0] == pytest.approx(1, abs=1e-12)  # both methods start from one model


def test_a_trajectory_is_at_no_distance_from_itself():
    rows = compare_trajectories(recorded(), recorded())
    raw = [r.value for r in rows if r.quantity == "relative_frobenius"]
    assert raw == [0.0] * 9


def test_trajectories_that_do_not_meet_are_refused():
    found = recorded()
    late = replace(found, points=found.points[1:2])
    with pytest.raises(InputError, match="no recorded step in common"):
        compare_trajectories(late, replace(found, points=found.points[2:]))
    other = record(outputs="margin", steps=1, at=[0], targets=None)
    with pytest.raises(InputError, match="outputs cannot be compared"):
        compare_trajectories(other, found)


@given(ours=STEPS, theirs=STEPS)
def test_the_steps_compared_are_those_of_both_in_order(ours, theirs):
    a, b = only(recorded("propulsion"), ours), only(recorded("full"), theirs)
    if not ours & theirs:
        with pytest.raises(InputError, match="propulsion and full have no recorded step in common"):
            compare_trajectories(a, b)
        return
    rows = compare_trajectories(a, b)
    assert list(dict.fromkeys(row.step for row in rows)) == sorted(ours & theirs)
    each = {(row.step, row.kernel, row.quantity) for row in rows}
    assert len(each) == len(rows)


def test_alignments_are_the_same_whichever_training_is_the_reference():
    def aligned(a, b):
        return {
            (row.step, row.kernel, row.quantity): row.value
            for row in compare_trajectories(recorded(a), recorded(b))
            if row.quantity in ("alignment", "cka") and row.kernel in ("own", "full")
        }

    there, back = aligned("propulsion", "full"), aligned("full", "propulsion")
    assert len(there) == 3 * 2 * 2  # steps, kernels, quantities
    assert there == pytest.approx(back, abs=1e-12)
