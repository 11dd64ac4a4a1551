import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import r2_score

from ntk_propulsion.errors import InputError
from ntk_propulsion.theory.agreement import agreement
from tests.theory.theory_kernels import seeds


def trainings(seed, outputs):
    rng = np.random.default_rng(seed)
    start = rng.normal(size=(6, outputs))
    moves = np.arange(4)[:, None, None] * rng.normal(size=(2, 4, 6, outputs))
    return start + moves[0], start + moves[1], start


@given(seeds, st.sampled_from([1, 3]))
def test_each_time_is_measured_by_itself(seed, outputs):
    predicted, real, start = trainings(seed, outputs)
    result = agreement(predicted, real, start)
    for t in range(1, 4):
        p, q = predicted[t] - start, real[t] - start
        error = np.linalg.norm(p - q) / np.linalg.norm(q)
        assert result.relative_error[t] == pytest.approx(error)
        assert result.r2[t] == pytest.approx(r2_score(q, p, multioutput="variance_weighted"))


def test_a_perfect_prediction_and_one_of_no_change():
    _, real, start = trainings(0, 2)
    perfect = agreement(real, real, start)
    np.testing.assert_array_equal(perfect.relative_error[1:], 0)
    np.testing.assert_array_equal(perfect.r2[1:], 1)
    np.testing.assert_array_equal(perfect.label_agreement, 1)
    still = agreement(np.broadcast_to(start, real.shape), real, start)
    np.testing.assert_allclose(still.relative_error[1:], 1)
    assert (still.r2[1:] <= 0).all()


def test_where_nothing_moves_the_measures_of_change_are_undefined():
    predicted, real, start = trainings(0, 2)
    result = agreement(predicted, real, start)
    assert np.isnan(result.relative_error[0])
    assert np.isnan(result.r2[0])
    assert result.label_agreement[0] == 1


def test_labels_are_the_largest_output_or_the_sign():
    two = agreement([[[0, 1], [1, 0]]], [[[0, 2], [0, 1]]], [[0, 0], [0, 0]])
    one = agreement([[1.0, -1.0, -2.0]], [[3.0, 1.0, -1.0]], [0.0, 0.0, 0.0])
    assert two.label_agreement == [0.5]
    assert one.label_agreement == pytest.approx([2 / 3])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((np.ones((2, 3, 1)), np.ones((2, 3, 2)), np.ones((3, 1))), "must be one"),
        ((np.ones(3), np.ones(3), np.ones(3)), "must be one"),
        ((np.ones((2, 3)), np.ones((2, 3)), np.ones(2)), "f0 of shape"),
        ((np.full((2, 3), np.nan), np.ones((2, 3)), np.ones(3)), "predicted has 6 NaN"),
    ],
)
def test_bad_input_is_named(arguments, words):
    with pytest.raises(InputError, match=words):
        agreement(*arguments)
