import numpy as np
import pytest
import torch

from ntk_propulsion.measurements.parts import condensed, parts_of, plain_module
from tests.measurements.finished import HEAD, kernel, kernels


def test_parts_split_by_module_and_leave_out_what_trains_nowhere():
    a, b = torch.eye(3), 2 * torch.eye(3)
    both = kernel(a + b, **{"body.scaling": a, "top.base": b})
    split = parts_of(both, ["top"])
    assert split.keys() == {"all", "without_head", "head"}
    assert np.array_equal(split["head"], b.numpy())
    assert np.array_equal(split["without_head"], a.numpy())
    assert parts_of(kernel(a, body=a), ["top"]).keys() == {"all", "without_head"}
    assert parts_of(kernel(a, body=0 * a, top=a), ["top"]).keys() == {"all", "head"}


@pytest.mark.parametrize("name", ["theta0/full", "theta0/propulsion"])
def test_a_condensed_kernel_splits_into_the_same_parts(name):
    whole = kernels()[name]
    small = condensed(whole, HEAD)
    assert len(small.per_module) == 1 + len(HEAD)
    expected, found = parts_of(whole, HEAD), parts_of(small, HEAD)
    assert found.keys() == expected.keys()
    for part, matrix in expected.items():
        np.testing.assert_allclose(found[part], matrix, rtol=1e-14)


def test_nothing_outside_the_head_leaves_the_head_alone():
    a = torch.eye(3)
    assert condensed(kernel(a, top=a), ["top"]).per_module.keys() == {"top"}


def test_a_scaling_stands_for_its_layer():
    assert [plain_module(name) for name in ("a.scaling", "a.base", "a")] == ["a"] * 3
