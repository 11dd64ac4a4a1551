"""Options: what they take, what they refuse by name, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.options import Options, parse_memory

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Settings:
    """What an experiment says of its kernels."""

    examples: int = 8
    outputs: str = "margin"
    dtype: str = "float64"
    memory: str = "1GiB"
    seed: int = 3


@pytest.mark.parametrize(
    ("text", "size"),
    [("8GiB", 8 << 30), ("1.5 GB", 1_500_000_000), ("300mib", 300 << 20), ("7", 7), (12, 12)],
)
def test_memory_is_read_in_decimal_and_binary_units(text: str | int, size: int) -> None:
    assert parse_memory(text) == size
    assert Options(memory=text).budget(CPU) == size


def test_without_a_budget_a_share_of_what_is_free_is_taken() -> None:
    assert 2**20 < Options().budget(CPU) < 2**50


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"memory": "8 apples"}, "not a size"),
        ({"memory": "..GiB"}, "not a size"),
        ({"memory": True}, "not a size"),
        ({"dtype": "float46"}, "no floating format"),
        ({"dtype": torch.int64}, "no floating format"),
        ({"seed": -1}, "seed -1: give a whole number"),
        ({"seed": 2**32}, "give a whole number"),
        ({"seed": "a"}, "give a whole number"),
        ({"chunk": 0}, "at least one example"),
        ({"product": "gradiant"}, "did you mean gradient"),
        ({"precision": "tf23"}, "did you mean tf32"),
    ],
)
def test_values_that_make_no_sense_are_refused_by_name(given: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Options(**given)


@pytest.mark.parametrize("dtype", ["float64", "torch.float64", torch.float64])
def test_a_dtype_may_be_its_name(dtype: str | torch.dtype) -> None:
    assert Options(dtype=dtype) == Options(dtype=torch.float64)


def test_numbers_of_numpy_are_numbers() -> None:
    assert Options(seed=np.int64(3), memory=np.int64(9)) == Options(seed=3, memory=9)


def test_the_widest_model_settles_the_dtype_which_is_at_least_float32() -> None:
    half, single, double = nn.Linear(1, 1).half(), nn.Linear(1, 1), nn.Linear(1, 1).double()
    assert Options().compute_dtype(half) == torch.float32
    assert Options().compute_dtype(single, double) == torch.float64
    assert Options(dtype="float32").compute_dtype(double) == torch.float32
    wide_head = nn.Sequential(single, double)
    assert Options().compute_dtype(wide_head) == torch.float64


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.complex64, torch.float32),
        (torch.complex128, torch.float64),
        (torch.float8_e4m3fn, torch.float32),
        (torch.int8, torch.float32),
    ],
)
def test_every_format_of_a_parameter_has_one_to_compute_in(
    dtype: torch.dtype, expected: torch.dtype
) -> None:
    model = nn.Module()
    model.p = nn.Parameter(torch.zeros(2).to(dtype), requires_grad=False)
    assert Options().compute_dtype(model) == expected


def test_options_are_given_whole_or_as_keywords() -> None:
    assert Options.given(None, seed=3) == Options(seed=3)
    assert Options.given(Options(seed=3), seed=0) == Options(seed=3)
    with pytest.raises(InputError, match=r"options= holds all of dtype=, seed= already"):
        Options.given(Options(), dtype="float64", seed=0)


def test_settings_of_an_experiment_become_options() -> None:
    assert Options.of(Settings()) == Options(dtype=torch.float64, memory="1GiB", seed=3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(examples=1), "--examples 1: a kernel compares at least 2"),
        (Settings(outputs="margins"), "did you mean margin"),
        (Settings(outputs="loss"), "unknown outputs 'loss'"),  # needs labels, which it has not
        (Settings(dtype="bfloat16"), "unknown dtype"),
        (Settings(seed=-1), "seed -1"),
        (Settings(memory="much"), "not a size"),
    ],
)
def test_settings_without_meaning_are_refused(settings: Settings, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Options.of(settings)
