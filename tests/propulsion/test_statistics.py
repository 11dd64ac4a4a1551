import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ntk_propulsion.errors import InputError
from ntk_propulsion.propulsion import PropulsionConfig, scaling_statistics, scalings, wrap
from ntk_propulsion.propulsion.statistics import QUANTILES, TOTAL

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


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({}, "no scaling vectors"),
        (torch.nn.Linear(2, 2), "no scaling vectors"),
        ({"x": torch.ones(2, 2)}, r"scaling of x has shape \(2, 2\)"),
        ({"x": torch.ones(0)}, r"shape \(0,\)"),
        ({"x": torch.tensor([1.0, math.nan])}, "x holds NaN"),
    ],
)
def test_vectors_that_cannot_be_used_are_named(source, message):
    with pytest.raises(InputError, match=message):
        scaling_statistics(source)
