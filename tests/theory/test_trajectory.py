import numpy as np
import pytest

from ntk_propulsion.errors import InputError
from ntk_propulsion.theory.trajectory import Problem, Trajectory, as_start, check_rate

K = np.array([[2.0, 0.5], [0.5, 1.0]])


def problem():
    return Problem.of(K, np.array([0.1, -0.2]), np.array([1.0, -1.0]), 1, "squared")


def test_coefficients_move_outputs_by_the_kernel():
    a = np.array([[0.3], [-0.4]])
    assert np.allclose(problem().moved(a), np.array([[0.1], [-0.2]]) - K @ a)


def test_others_move_by_their_kernel_with_the_training_examples():
    coefficients = np.array([[[0.0], [0.0]], [[1.0], [2.0]]])
    told = Trajectory(np.arange(2.0), np.zeros((2, 2, 1)), coefficients, np.zeros(2))
    cross = np.array([[1.0, 0.0], [0.0, 3.0], [1.0, 1.0]])
    start = np.array([5.0, 6.0, 7.0])
    assert np.allclose(told.elsewhere(cross, start)[:, :, 0], [[5, 6, 7], [4, 0, 4]])
    with pytest.raises(InputError, match="2 training rows"):
        told.elsewhere(np.ones((3, 4)), start)


def test_outputs_that_overflow_are_refused():
    with pytest.raises(InputError, match="lower the learning rate"):
        problem().trajectory(np.zeros(1), np.full((1, 2), np.inf), np.zeros((1, 2)))


def test_a_start_is_of_examples_and_outputs():
    assert as_start([1.0, 2.0], 2, 1).shape == (2, 1)
    assert as_start(np.ones((2, 3)), 2, 3).shape == (2, 3)
    for bad in (np.ones(6), np.ones((3, 2))):
        with pytest.raises(InputError, match="2 examples, 3 each"):
            as_start(bad, 2, 3)


@pytest.mark.parametrize("rate", [0.0, -1.0, np.inf, np.nan])
def test_a_rate_is_positive_and_finite(rate):
    check_rate(0.1)
    with pytest.raises(InputError, match="positive and finite"):
        check_rate(rate)
