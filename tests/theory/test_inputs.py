from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ntk_propulsion.errors import InputError
from ntk_propulsion.theory.inputs import (
    as_matrix,
    count_outputs,
    kernel_pair,
    nonzero,
    rows_are_columns,
)


def kernel_object(matrix, outputs, comparable=True):
    def check_comparable(other):
        if not comparable:
            raise InputError("the kernels are over other examples")

    return SimpleNamespace(
        matrix=torch.as_tensor(matrix), num_outputs=outputs, check_comparable=check_comparable
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int64])
def test_tensors_of_any_dtype_become_float64(dtype):
    matrix = as_matrix(
        torch.tensor([[1, 2], [3, 4]], dtype=dtype).requires_grad_(dtype.is_floating_point)
    )
    assert matrix.dtype == np.float64
    np.testing.assert_array_equal(matrix, [[1, 2], [3, 4]])


def test_kernel_objects_and_arrays_mix():
    A, B = kernel_pair(kernel_object(np.eye(4), 2), np.ones((4, 4)))
    assert A.shape == B.shape == (4, 4)
    assert count_outputs(kernel_object(np.eye(4), 2), np.ones((4, 4))) == 2


def test_outputs_default_to_one_and_must_agree():
    assert count_outputs(np.eye(4)) == 1
    with pytest.raises(InputError, match=r"\[2, 4\]"):
        count_outputs(kernel_object(np.eye(4), 2), outputs=4)


@pytest.mark.parametrize("outputs", [0, 3, -1])
def test_outputs_must_divide_the_kernel(outputs):
    with pytest.raises(InputError, match="do not divide"):
        count_outputs(np.eye(4), outputs=outputs)


@pytest.mark.parametrize(
    ("K", "K0", "words"),
    [
        (np.eye(3), np.eye(4), r"\(3, 3\) but K0 \(4, 4\)"),
        (np.eye(3), np.full((3, 3), np.nan), "K0 has 9 NaN"),
        (torch.tensor([[np.inf]]), np.eye(1), "K has 1 NaN or infinite"),
        (np.eye(3)[0], np.eye(3), "K must be a non-empty matrix"),
        (np.zeros((0, 0)), np.zeros((0, 0)), "non-empty"),
        ([["a"]], np.eye(1), "not an array of numbers"),
    ],
)
def test_unusable_kernels_are_named(K, K0, words):
    with pytest.raises(InputError, match=words):
        kernel_pair(K, K0)


def test_kernels_over_other_examples_are_refused():
    with pytest.raises(InputError, match="other examples"):
        kernel_pair(kernel_object(np.eye(2), 1, comparable=False), kernel_object(np.eye(2), 1))


def test_a_square_cross_kernel_object_says_that_it_is_one():
    cross = SimpleNamespace(matrix=torch.eye(4), num_outputs=1, symmetric=False)
    assert not rows_are_columns(cross, np.eye(4))
    assert rows_are_columns(np.eye(4))
    assert not rows_are_columns(np.eye(4), stated=False)
    assert not rows_are_columns(np.ones((4, 3)))
    with pytest.raises(InputError, match="other examples in its columns"):
        rows_are_columns(cross, stated=True)


def test_zero_kernels_are_named():
    with pytest.raises(InputError, match="K0 is zero"):
        nonzero(np.zeros((2, 2)), "K0")
