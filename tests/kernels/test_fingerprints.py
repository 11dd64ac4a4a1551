"""Fingerprints tell data and models apart."""

from __future__ import annotations

from collections.abc import Mapping

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
