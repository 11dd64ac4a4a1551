import math

import numpy as np
import pytest

from ntk_propulsion.errors import InputError
from ntk_propulsion.tasks import Example, Task
from tests.tiny_folders import make_task


def task(kind, labels):
    examples = tuple(Example(i, "x", None, label) for i, label in enumerate(labels))
    names = tuple(map(str, sorted(set(labels)))) if kind == "classification" else ()
    return Task("t", kind, names, examples, examples, "accuracy", "made up")


def test_targets_are_one_hot_classes_or_the_numbers_themselves():
    classes, values = task("classification", [0, 1, 1]), task("regression", [0.5, 2.0, 1.0])
    assert classes.targets(classes.test).tolist() == [[1, 0], [0, 1], [0, 1]]
    assert np.array_equal(values.targets(values.test), [[0.5], [2.0], [1.0]])
    three = make_task(classes=3)
    assert three.targets(three.test).shape == (len(three.test), 3)


def test_scores_agree_with_hand_computed_values():
    assert task("classification", [0, 1]).score([0, 1, 1, 1], [0, 1, 0, 1]) == {"accuracy": 0.75}
    cola = Task("cola", "classification", ("0", "1"), (), (), "matthews", "")
    # tp 2, tn 1, fp 1, fn 0: (2 - 0) / sqrt(3 * 2 * 2 * 1)
    assert cola.score([0, 1, 1, 1], [0, 1, 0, 1])["matthews"] == pytest.approx(2 / 12**0.5)
    stsb = Task("stsb", "regression", (), (), (), "pearson", "")
    scores = stsb.score([1.0, 2.0, 9.0], [1.0, 2.0, 3.0])
    assert scores["spearman"] == pytest.approx(1)
    assert scores["pearson"] == pytest.approx(8 / (38 * 2) ** 0.5)


def test_constant_predictions_score_nan_without_a_warning(recwarn):
    stsb = Task("stsb", "regression", (), (), (), "pearson", "")
    assert all(math.isnan(x) for x in stsb.score([1.0] * 3, [1.0, 2.0, 3.0]).values())
    assert not recwarn.list


@pytest.mark.parametrize("label", [-1, 2, -100, 0.5, math.nan])
def test_a_label_that_is_no_class_is_refused(label):
    examples = (Example(0, "a", None, 1), Example(7, "b", None, label))
    for splits in ((examples, ()), ((), examples)):
        with pytest.raises(InputError, match="row 7 is none of 0 to 1"):
            Task("t", "classification", ("a", "b"), *splits, "accuracy", "")
    with pytest.raises(InputError, match="row 7 is none of 0 to 1"):
        make_task().targets(examples)


@pytest.mark.parametrize("label", [math.nan, math.inf])
def test_a_target_that_is_not_finite_is_refused(label):
    with pytest.raises(InputError, match="row 0 is not a finite number"):
        task("regression", [label])


def test_an_unknown_kind_is_refused():
    with pytest.raises(InputError, match="did you mean regression"):
        Task("t", "regresion", (), (), (), "pearson", "")
