import numpy as np
import torch

from ntk_propulsion.figures import Labels


def test_examples_are_sorted_by_class_stably():
    assert Labels.of([1, 0, 1, 0]).order.tolist() == [1, 3, 0, 2]
    assert Labels.of(["b", "a", "b"]).order.tolist() == [1, 0, 2]
    assert Labels.of(torch.tensor([10, 9, 2])).order.tolist() == [2, 1, 0]


def test_values_that_are_not_whole_are_those_of_a_regression():
    assert Labels.of([0.5, 2.0]).continuous
    assert Labels.of(np.array([0.5, 2.0])).order.tolist() == [0, 1]
    assert not Labels.of([0.0, 1.0]).continuous
    assert not Labels.of([0, 1], ["no", "yes"]).continuous


def test_a_label_is_named():
    named = Labels.of([1.0, 0.0], ["no", "yes"])
    assert [named.name(row) for row in range(2)] == ["yes", "no"]
    assert Labels.of([3]).name(0) == "3"
    assert Labels.of(["sad"]).name(0) == "sad"
    assert Labels((2.25,), continuous=True).name(0) == "2.25"


def test_labels_stay_what_they_are():
    known = Labels((1, 2), continuous=True)
    assert Labels.of(known) is known
