"""What a stranger's model raises is said in one line; what is no fault of it passes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.engine.forward import (
    evaluate,
    first_line,
    said_as_input,
    unless_memory,
)
from ntk_propulsion.kernels.outputs import resolve_outputs
from tests.architectures import build, vectors

LOGITS = resolve_outputs("logits")


class Single(nn.Module):
    """Takes one example at a time."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 1:
            raise ValueError("this takes at most 1\nat a time")
        return x


def test_a_models_own_words_are_kept_in_one_line() -> None:
    assert evaluate(Single(), vectors(1), 1, LOGITS).shape == (1, 6)
    with pytest.raises(InputError, match=r"^the model does not run on 2 examples.*at most 1$"):
        evaluate(Single(), vectors(2), 2, LOGITS)


def test_a_function_of_the_outputs_is_told_from_the_model() -> None:
    with pytest.raises(InputError, match=r"outputs' function.*one example alone: ZeroDivision"):
        evaluate(build("mlp"), vectors(1), 1, lambda output: 1 / 0)


def test_what_is_said_already_is_not_said_again() -> None:
    with pytest.raises(InputError, match=r"^mine$"), said_as_input("theirs"):
        raise InputError("mine")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("full"),
        torch.OutOfMemoryError("full"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_memory_that_ran_out_is_no_property_of_a_model(error: Exception) -> None:
    with pytest.raises(type(error)):
        unless_memory(error)
    with pytest.raises(type(error)), said_as_input("theirs"):
        raise error


def test_other_errors_may_be_borne() -> None:
    unless_memory(RuntimeError("more than one element refers to a single memory location"))


def test_an_error_without_words_is_its_type() -> None:
    assert first_line(KeyError()) == "KeyError"
    assert first_line(ValueError("one\ntwo")) == "ValueError: one"
