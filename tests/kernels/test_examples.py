"""Choices of examples: which are meant, and which are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.examples import (
    OutOfRangeError,
    chosen_examples,
    entries,
    subset_name,
)


@pytest.mark.parametrize(
    ("examples", "numbers"),
    [
        (1, [1]),
        (-1, [3]),
        (np.int64(2), [2]),
        (slice(1, None), [1, 2, 3]),
        (slice(None, None, -2), [3, 1]),
        ([2, 0, 2], [2, 0, 2]),
        ((0, -1), [0, 3]),
        (range(2), [0, 1]),
        ([True, False, False, True], [0, 3]),
        (np.array([False, True, False, False]), [1]),
        (torch.tensor([3, 1]), [3, 1]),
        (torch.tensor([True, True, False, False]), [0, 1]),
        (np.array([1, 2], dtype=np.uint8), [1, 2]),
    ],
)
def test_examples_by_number_slice_list_and_mask(examples: object, numbers: list[int]) -> None:
    assert chosen_examples(examples, 4) == numbers


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        (4, "no example 4: the kernel has 4, 0 to 3"),
        (-5, "no example -5"),
        ([0, 9], "no example 9"),
        ([True, False], r"a mask of examples is \(4,\).*not \(2,\)"),
        ([], "chooses none"),
        (slice(7, 9), "chooses none of the kernel's 4"),
        ([False] * 4, "chooses none"),
        (1.5, "not by 1.5"),
        ("all", "not by 'all'"),
        (None, "not by None"),
        (..., "not by Ellipsis"),
        ([[0, 1]], "not by"),
    ],
)
def test_what_chooses_no_examples_is_named(examples: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        chosen_examples(examples, 4)


def test_an_example_out_of_range_ends_a_loop_as_lists_do() -> None:
    with pytest.raises(IndexError):
        chosen_examples(4, 4)
    assert issubclass(OutOfRangeError, InputError)


@given(st.lists(st.integers(0, 5), min_size=1), st.integers(1, 4))
def test_entries_are_those_of_the_examples_in_their_order(examples: list[int], o: int) -> None:
    expected = [n * o + i for n in examples for i in range(o)]
    assert entries(examples, o, torch.device("cpu")).tolist() == expected


def test_all_examples_in_order_keep_the_batch_s_name() -> None:
    assert subset_name("whole", [0, 1, 2], 3) == "whole"
    assert len({"whole", *(subset_name("whole", e, 3) for e in ([0, 1], [2, 1, 0]))}) == 3
