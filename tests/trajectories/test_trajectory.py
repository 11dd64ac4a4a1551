"""Tables and verdicts of trajectories."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ntk_propulsion.errors import InputError
from ntk_propulsion.measurements.regime import kernel_regime
from ntk_propulsion.theory.distances import alignment_distance, cka
from ntk_propulsion.theory.regression import target_alignment
from ntk_propulsion.theory.spectrum import participation_ratio
from tests.trajectories.recorded import LABELS, recorded


def test_the_table_is_tidy_and_each_quantity_is_there_once():
    table = recorded("propulsion").table()
    assert {each.method for each in table} == {"propulsion"}
    names = [(q.step, q.kernel, q.quantity, q.example) for q in table]
    assert len(set(names)) == len(names)
    examples = [each for each in table if each.example is not None]
    assert len(examples) == 3 * 3 * 4  # quantities, points, texts
    assert all(isinstance(each.value, float) and np.isfinite(each.value) for each in table)


@pytest.mark.parametrize("kernel", ["own", "full"])
def test_what_the_table_says_of_kernels_is_said_of_the_recorded_ones(kernel):
    found = recorded("propulsion")
    K = [point.kernels[kernel] for point in found.points]

    def series(quantity):
        steps, values = found.series(quantity, kernel)
        assert steps == found.steps
        return values

    near = pytest.approx
    assert series("effective_rank") == near([participation_ratio(k) for k in K])
    assert series("trace") == near([float(k.matrix.trace()) for k in K])
    expected = [target_alignment(k, LABELS, centred=True) for k in K]
    assert series("target_alignment") == near(expected)
    assert series("cka") == near([cka(k, K[0]) for k in K])
    speeds = [0, alignment_distance(K[1], K[0]), alignment_distance(K[2], K[1]) / 3]
    assert series("kernel_velocity") == near(speeds)
    assert series("relative_frobenius")[0] == 0 < series("relative_frobenius")[-1]


def test_totals_and_examples_are_those_of_the_points():
    found = recorded()
    steps, drift = found.series("feature_drift")
    assert steps == found.steps == [0, 1, 4]
    assert drift.tolist() == [point.measures.feature_drift for point in found.points]
    assert found.per_example("linearization_error").shape == (3, 4)
    rows = [
        each.value
        for each in found.table()
        if each.quantity == "feature_velocity" and each.example == 2
    ]
    assert rows == found.per_example("feature_velocity")[:, 2].tolist()
    assert found.series("loss", None)[0] == [1, 2, 3, 4]


def test_the_verdict_is_of_the_last_point():
    found = recorded()
    assert found.regime() == kernel_regime(found.points[-1].measures)
    early = replace(found, points=found.points[:1])
    assert early.regime() == kernel_regime(found.points[0].measures) != found.regime()
    assert not early.complete
    assert found.complete


def test_unknown_names_and_steps_are_refused_with_what_there_is():
    found = recorded()
    with pytest.raises(InputError, match=r"step 3 of full was not recorded; there are 0, 1, 4"):
        found.at(3)
    with pytest.raises(InputError, match="did you mean feature_drift"):
        found.series("feature_drif")
    with pytest.raises(InputError, match="unknown quantity per example 'trace'"):
        found.per_example("trace")
