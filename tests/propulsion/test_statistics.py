"""Statistics of scaling vectors."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ntk_propulsion.errors import InputError
from ntk_propulsion.propulsion import (
    DEGREES,
    NEAR_ONE,
    QUANTILES,
    TOTAL,
    PropulsionConfig,
    gains_by_degree,
    scaling_statistics,
    scalings,
    wrap,
)
from tests.propulsion.deviations import SEEDS

VECTORS = hnp.arrays(np.float64, st.integers(1, 20), elements=st.floats(-2, 2))


@given(VECTORS, st.integers(1, 30))
def test_numbers_agree_with_numpy(z, degree):
    row = scaling_statistics({"encoder.layer.0.output.dense": torch.tensor(z)}, degree)[0]
    gain = z**degree
    assert row.n == len(z)
    assert row.mean == pytest.approx(z.mean())
    assert row.std == pytest.approx(z.std(), abs=1e-12)
    assert (row.min, row.max) == (z.min(), z.max())
    assert row.quantiles == pytest.approx(np.quantile(z, QUANTILES))
    assert row.share_near_one == pytest.approx(np.mean((z >= 0.98) & (z <= 1.02)))
    assert row.sign_changes == np.sum(z < 0)
    assert row.gain.mean == pytest.approx(gain.mean())
    assert row.gain.min == pytest.approx(gain.min())
    assert row.gain.max == pytest.approx(gain.max())
    assert row.gain.near_zero == np.sum(abs(gain) < 0.01)
    distances = [abs(entry.z - 1) for entry in row.moved]
    assert distances == pytest.approx(np.sort(abs(z - 1))[::-1][:5])
    assert all(z[entry.neuron] == entry.z for entry in row.moved)


def test_a_narrow_range_of_z_is_not_a_narrow_range_of_gains():
    row = scaling_statistics({"x": torch.tensor([0.98, 1.02])}, degree=15)[0]
    assert row.share_near_one == 1
    assert row.gain.share_near_one == 0
    assert row.gain.min == pytest.approx(0.739, abs=5e-4)
    assert row.gain.max == pytest.approx(1.346, abs=5e-4)


def test_an_unknown_degree_leaves_the_gains_out():
    assert all(row.gain is None for row in scaling_statistics({"x": torch.ones(3)}))


def test_the_last_row_is_over_all_modules():
    first, second = torch.tensor([1.0, 1.5]), torch.tensor([1.0, 0.1, -3.0])
    rows = scaling_statistics({"a.query": first, "classifier": second}, degree=2, top=2)
    assert [(row.module, row.role) for row in rows] == [
        ("a.query", "query"),
        ("classifier", "head"),
        (TOTAL, TOTAL),
    ]
    whole = rows[-1]
    assert whole.n == 5
    assert whole.mean == pytest.approx(float(torch.cat([first, second]).mean()))
    assert [(entry.module, entry.neuron) for entry in whole.moved] == [
        ("classifier", 2),
        ("classifier", 1),
    ]


def test_a_model_knows_its_degree(bert):
    wrap(bert, PropulsionConfig(4, initialisation=0.5))
    rows = scaling_statistics(bert)
    assert [row.module for row in rows[:-1]] == list(scalings(bert))
    assert all(row.gain.degree == 4 for row in rows)
    assert all(row.gain.mean == pytest.approx(1 / 16) for row in rows)
    with pytest.raises(InputError, match="has degree 4, not 5"):
        scaling_statistics(bert, degree=5)


def test_rows_can_be_written_as_json():
    rows = [dataclasses.asdict(row) for row in scaling_statistics({"x": torch.ones(3)}, 3)]
    assert json.loads(json.dumps(rows))[0]["gain"]["mean"] == 1


@given(SEEDS, st.integers(40, 200), st.sets(st.integers(0, 39), min_size=1, max_size=5))
def test_planted_outliers_are_found(seed, n, planted):
    rng = np.random.default_rng(seed)
    z = torch.tensor(1 + 0.01 * rng.uniform(-1, 1, size=n))
    z[list(planted)] += torch.tensor(rng.choice([-1, 1], len(planted)) * 0.3)
    row = scaling_statistics({"x": z}, top=10)[0]
    assert {each.neuron for each in row.outliers.furthest} == planted
    assert row.outliers.count == len(planted)


def test_a_few_that_moved_among_many_that_did_not_are_outliers():
    z = torch.ones(50)
    z[[3, 7]] = torch.tensor([1.2, 0.9])
    outliers = scaling_statistics({"x": z})[0].outliers
    assert [each.neuron for each in outliers.furthest] == [3, 7]
    assert outliers.spread > 0


def test_equal_entries_have_no_outliers():
    outliers = scaling_statistics({"x": torch.full((9,), 1.3)})[0].outliers
    assert (outliers.count, outliers.spread, outliers.furthest) == (0, 0, ())


def test_dead_neurons_are_listed_by_their_gain_not_by_z():
    z = torch.tensor([1.0, 0.5, 0.05, -0.3])
    assert scaling_statistics({"x": z}, degree=1)[0].gain.near_zero == 0
    gain = scaling_statistics({"x": z}, degree=15)[0].gain
    assert gain.near_zero == 3
    assert [each.neuron for each in gain.dead] == [2, 3, 1]
    whole = scaling_statistics({"x": torch.ones(2), "y": z}, degree=15, top=2)[-1]
    assert [(each.module, each.neuron) for each in whole.gain.dead] == [("y", 2), ("y", 3)]


def test_an_unknown_degree_has_a_table_of_what_each_would_mean():
    z = torch.tensor([0.98, 1.0, 1.02], dtype=torch.float64)
    source = {"a.query": z, "b": torch.tensor([0.7, 1.0])}
    table = gains_by_degree(source)
    assert [(row.module, row.gain.degree) for row in table] == [
        (module, degree) for module in ("a.query", "b", TOTAL) for degree in DEGREES
    ]
    for row in table:
        degree = row.gain.degree
        statistics = {s.module: s for s in scaling_statistics(source, degree)}[row.module]
        assert row.gain == statistics.gain
        assert row.role == statistics.role
    widest = table[len(DEGREES) - 1].gain
    assert (widest.min, widest.max) == pytest.approx((0.98**55, 1.02**55))
    assert [row.gain.share_near_one for row in table[:2]] == [1, pytest.approx(1 / 3)]


def test_the_range_of_gains_is_the_callers_and_is_stated():
    source = {"x": torch.tensor([0.9, 1.0, 1.1])}
    wide, narrow = gains_by_degree(source, [1], (0.5, 1.05))[0], gains_by_degree(source, [1])[0]
    assert wide.gain.share_near_one == pytest.approx(2 / 3)
    assert wide.gain.near_one == (0.5, 1.05)
    assert narrow.gain.share_near_one == pytest.approx(1 / 3)
    assert narrow.gain.near_one == NEAR_ONE
    with pytest.raises(InputError, match="is empty"):
        gains_by_degree(source, [1], (2, 1))
