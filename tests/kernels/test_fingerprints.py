"""Fingerprints tell data and models apart."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ntk_propulsion.kernels import data_fingerprint, model_fingerprint
from ntk_propulsion.kernels.fingerprints import subset_fingerprint
from tests.architectures import tokens


@given(seed=st.integers(0, 999))
def test_fingerprints_tell_data_apart(seed: int) -> None:
    batch = tokens(3)
    n, t = seed % 3, (seed // 3) % 7
    changed = {**batch, "input_ids": batch["input_ids"].clone()}
    changed["input_ids"][n, t] += 1
    renamed = {"ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    prints = {data_fingerprint(b) for b in (batch, changed, renamed, batch["input_ids"])}
    assert len(prints) == 4
    assert data_fingerprint({k: v.clone() for k, v in batch.items()}) == data_fingerprint(batch)


def test_a_tokenizers_mapping_has_the_fingerprint_of_its_dict() -> None:
    class Encoding(Mapping):
        def __init__(self, data):
            self.data = data

        def __getitem__(self, key):
            return self.data[key]

        def __iter__(self):
            return iter(self.data)

        def __len__(self):
            return len(self.data)

    assert data_fingerprint(Encoding(tokens(2))) == data_fingerprint(tokens(2))


def test_fingerprints_tell_models_apart_by_values_dtype_and_buffers() -> None:
    model = nn.BatchNorm1d(3)
    before = model_fingerprint(model)
    assert model_fingerprint(nn.BatchNorm1d(3)) == before
    model.running_mean[0] = 1
    assert model_fingerprint(model) != before
    assert model_fingerprint(nn.BatchNorm1d(3).double()) != before
    assert model_fingerprint(nn.Linear(2, 2).bfloat16()) != before


def test_fingerprints_of_some_examples_follow_the_batch_and_the_choice() -> None:
    prints = [
        subset_fingerprint(whole, examples)
        for whole in ("a", "b")
        for examples in ([0, 1], [1, 0], [0], [0, 1, 1])
    ]
    assert len(set(prints)) == len(prints)
    assert subset_fingerprint("a", [0, 1]) == subset_fingerprint("a", (0, 1)) == prints[0]


class Extra(nn.Linear):
    """A layer with a state that is no tensor."""

    def __init__(self, state: Any) -> None:
        super().__init__(2, 2, bias=False)
        nn.init.ones_(self.weight)
        self.state = state

    def get_extra_state(self) -> Any:
        return self.state


def test_extra_state_counts_by_its_contents() -> None:
    def states() -> list[Any]:
        return [
            None,
            {"scale": 1.0},
            {"scale": 2.0},
            {"scale": torch.ones(2)},
            {"scale": torch.zeros(2)},
            [1, "a", b"a"],
            io.BytesIO(b"abc"),
            np.arange(3),
            SimpleNamespace(a=torch.ones(1)),
            {"a", "b"},
            torch.float16,
        ]

    prints = [model_fingerprint(Extra(state)) for state in states()]
    assert len(set(prints)) == len(prints)
    assert prints == [model_fingerprint(Extra(state)) for state in states()]


def test_models_of_every_kind_of_number_have_fingerprints() -> None:
    for dtype in (torch.complex64, torch.bfloat16, torch.float8_e4m3fn, torch.int8, torch.bool):
        found = set()
        for value in (0, 1):
            model = nn.Linear(2, 2)
            nn.init.ones_(model.weight), nn.init.ones_(model.bias)
            model.register_buffer("held", torch.full((3,), value).to(dtype))
            model.register_buffer("scalar", torch.tensor(value).to(dtype))
            found.add(model_fingerprint(model))
        assert len(found) == 2


def test_values_of_a_batch_that_are_no_tensors_count() -> None:
    x = torch.ones(2, 3)
    batches = [
        {"x": x, "n": [1, 2]},
        {"x": x, "n": [2, 1]},
        {"x": x, "n": (2, 1)},
        {"x": x, "n": np.arange(5000.0)},
        {"x": x, "n": np.arange(5000.0)[::-1]},
        {"x": x, "n": object},
    ]
    assert len({data_fingerprint(batch) for batch in batches}) == len(batches)


def test_a_fingerprint_is_the_same_in_every_process() -> None:
    code = (
        "import torch; from types import SimpleNamespace as S\n"
        "from ntk_propulsion.kernels import data_fingerprint\n"
        "print(data_fingerprint({'x': torch.ones(2), 's': S(a={'b', 'c', 'd'}, f=len), 'o': S}))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    }
    assert len(found) == 1
