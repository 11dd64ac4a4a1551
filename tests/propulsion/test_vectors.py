"""Scaling vectors, read and checked."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ntk_propulsion.errors import InputError
from ntk_propulsion.propulsion import (
    scaling_of_gains,
    scaling_statistics,
)
from ntk_propulsion.propulsion.layers import PropulsionLayer, Scaling


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


@given(hnp.arrays(np.float64, 6, elements=st.floats(-3, 3)), st.integers(1, 60))
def test_the_scaling_of_gains_is_their_real_root(gains, degree):
    z = scaling_of_gains(torch.tensor(gains), degree)
    real = torch.tensor((gains >= 0) | (degree % 2 == 1))
    torch.testing.assert_close(z[real] ** degree, torch.tensor(gains)[real])
    assert z[~real].isnan().all()


def test_pooled_vectors_count_by_their_pool():
    z = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    layer = PropulsionLayer(torch.nn.Linear(2, 2), Scaling(z, 2, pooling="max"))
    row = scaling_statistics(torch.nn.Sequential(layer))[0]
    assert (row.n, row.min, row.max) == (2, 2, 3)
    assert row.gain.max == 9
