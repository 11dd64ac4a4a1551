"""From what a caller says of outputs to a function, and what that must give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.outputs import (
    Column,
    Loss,
    Margin,
    evaluate_outputs,
    output_goals,
    resolve_outputs,
)
from tests.architectures import vectors


def test_a_name_a_kind_its_class_and_a_number_say_outputs() -> None:
    assert resolve_outputs("margin") == resolve_outputs(Margin) == Margin()
    assert resolve_outputs(0) == Column(0)
    loss = Loss([0, 1])
    assert resolve_outputs(loss) is loss


def test_a_function_stays_itself() -> None:
    def first(output: torch.Tensor) -> torch.Tensor:
        return output[:, :1]

    assert resolve_outputs(first) is first


@pytest.mark.parametrize(
    ("outputs", "message"),
    [("losses", "did you mean loss"), (None, "None is none"), (1.5, "is none"), (str, "is none")],
)
def test_what_says_no_outputs_is_named(outputs: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve_outputs(outputs)


@pytest.mark.parametrize(
    "values", [torch.ones(3), torch.ones(2, 1), torch.ones(3, 1, 1), "text", None]
)
def test_outputs_must_be_a_matrix_of_the_examples(values: object) -> None:
    with pytest.raises(InputError, match=r"must be a tensor \(3 examples, O outputs\)"):
        evaluate_outputs(lambda output: values, None, 3, vectors(3))


ONE_HOT, NUMBERS = np.eye(2)[[0, 1, 1]], np.array([[0.5], [2.0], [1.0]])


@pytest.mark.parametrize(
    ("outputs", "of_classes", "of_numbers"),
    [
        ("logits", ONE_HOT, NUMBERS),
        ("margin", [[-1], [1], [1]], NUMBERS),
        ("sum", None, NUMBERS),
        (1, [[0], [1], [1]], None),
        ("loss", None, None),
        (lambda output: output, None, None),
    ],
)
def test_goals_follow_the_outputs(outputs: Any, of_classes: Any, of_numbers: Any) -> None:
    for targets, expected in ((ONE_HOT, of_classes), (NUMBERS, of_numbers)):
        if targets is NUMBERS and outputs == 1:
            continue  # there is one column only
        found = output_goals(outputs, targets)
        if expected is None:
            assert found is None
        else:
            np.testing.assert_array_equal(found, expected)
