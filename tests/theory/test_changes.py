import math

import numpy as np
import pytest
import torch
from hypothesis import given

from ntk_propulsion.theory.changes import tensor_change
from tests.theory.theory_kernels import seeds


@given(seeds)
def test_a_tensors_change_agrees_with_numpy(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, 3, 4, 2)).astype(np.float32)
    change = tensor_change(torch.tensor(a), torch.tensor(b))
    exact = b.astype(float) - a
    assert change.changed
    assert change.norm == pytest.approx(np.linalg.norm(exact))
    assert change.relative_norm == pytest.approx(np.linalg.norm(exact) / np.linalg.norm(a))
    assert change.largest == np.abs(exact).max()


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        (torch.tensor([1.0, math.nan]), torch.tensor([1.0, math.nan]), False),
        (torch.tensor([0.0]), torch.tensor([-0.0]), True),
        (torch.tensor([0.1]), torch.tensor([0.1]).bfloat16(), False),
        (torch.tensor([0.1]), torch.tensor([0.2]).bfloat16(), True),
        (torch.tensor(2.0), torch.tensor(2.0), False),
    ],
)
def test_changed_means_bits(before, after, changed):
    assert tensor_change(before, after).changed is changed


def test_a_zero_tensor_has_no_relative_norm():
    change = tensor_change(torch.zeros(2), torch.ones(2))
    assert change.relative_norm is None
    assert change.norm == pytest.approx(math.sqrt(2))
