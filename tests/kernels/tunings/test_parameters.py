"""Parameters by pattern."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.tunings import (
    Full,
    Parameters,
    RandomSubset,
    Trainable,
)
from tests.architectures import build
from tests.kernels.oracle import relative
from tests.kernels.tunings.zoo import compute, expected


def test_parameters_by_pattern() -> None:
    model = build("bert")
    found = compute("bert", model, Parameters(("*query.*", "*.word_embeddings.weight")))
    chosen = [p for n, p in model.named_parameters() if "query" in n or "word_emb" in n]
    assert relative(found["parameters"].matrix, expected("bert", model, chosen)) < 1e-12


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("bert", lambda: Parameters(("*nothing*",)), r"no parameters in the reach.*\*nothing\*"),
    ],
)
def test_bad_input_is_named(name: str, make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compute(name, build(name), make())


def test_complex_parameters_are_bound_and_whole_numbers_are_not() -> None:
    model = nn.Module()
    model.z = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    model.x = nn.Parameter(torch.ones(2))
    model.n = nn.Parameter(torch.ones(2, dtype=torch.int8), requires_grad=False)
    for tuning in (Full(), Parameters(("*",)), Trainable(), Full() + Trainable()):
        assert tuning.bind(model).parameters == ("z", "x")
    with pytest.raises(InputError, match="no parameters in the reach"):
        Parameters(("n",)).bind(model)


def test_a_random_subset_draws_real_and_imaginary_parts() -> None:
    model = nn.Module()
    model.z = nn.Parameter(torch.ones(3, dtype=torch.complex64))
    model.x = nn.Parameter(torch.ones(2))
    entries = RandomSubset(8).bind(model).entries
    assert entries["z"].tolist() == list(range(6))
    assert entries["x"].tolist() == [0, 1]
    with pytest.raises(InputError, match="9 entries: the model has 8"):
        RandomSubset(9).bind(model)
