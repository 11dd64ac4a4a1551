"""A random subset is as large as it should be, and as even."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.tunings import (
    BitFit,
    Head,
    LoRA,
    Propulsion,
    RandomSubset,
)
from tests.architectures import build
from tests.kernels.oracle import relative, tolerance
from tests.kernels.tunings.zoo import compute, rows


@pytest.mark.parametrize("name", ["mlp", "cnn", "bert", "gpt2-lm", "albert", "padded-embedding"])
def test_random_subset_is_entries_of_the_full_jacobian(name: str) -> None:
    model = build(name)
    size = sum(p.numel() for p in model.parameters()) // 3
    tuning = RandomSubset(size, seed=3)
    found = compute(name, model, tuning)["random_subset"]
    total = 0
    for parameter, index in tuning.bind(model).entries.items():
        part = rows(name, model, [model.get_parameter(parameter)])[:, index]
        total = total + part @ part.T
    assert relative(found.matrix, total) < tolerance(name)
    assert found.num_parameters == size


def test_random_subset_is_as_large_as_another_tuning() -> None:
    model = build("bert")
    for other in (Propulsion(), LoRA(2), BitFit() + Head()):
        found = compute("bert", model, other, RandomSubset(other))
        assert found["random_subset"].num_parameters == found[other.name].num_parameters


@given(size=st.integers(1, 99), seed=st.integers(0, 99))
def test_random_subset_draws_distinct_entries_by_its_seed(size: int, seed: int) -> None:
    model = build("mlp")
    drawn = RandomSubset(size, seed).bind(model).entries
    again = RandomSubset(size, seed).bind(model).entries
    assert sum(len(index.unique()) for index in drawn.values()) == size
    assert all(torch.equal(index, again[name]) for name, index in drawn.items())
    assert all(
        0 <= index.min() <= index.max() < model.get_parameter(name).numel()
        for name, index in drawn.items()
    )


def test_random_subset_covers_the_model_evenly() -> None:
    model = build("mlp")
    counts = torch.zeros(99)
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    for seed in range(400):
        start, drawn = 0, RandomSubset(20, seed).bind(model).entries
        for name, size in sizes.items():
            counts[start + drawn.get(name, torch.empty(0, dtype=torch.long))] += 1
            start += size
    share = counts / 400  # binomial, mean 20/99, standard deviation .0201
    assert (share - 20 / 99).abs().max() < 5 * 0.0201


def test_in_a_run_it_has_propulsions_size_and_the_runs_seed() -> None:
    assert RandomSubset().in_run(Propulsion(3), seed=7) == RandomSubset(Propulsion(3), 7)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("bert", lambda: RandomSubset(0), "0 entries"),
        ("bert", lambda: RandomSubset(10**9), "1000000000 entries: the model has"),
    ],
)
def test_bad_input_is_named(name: str, make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compute(name, build(name), make())
