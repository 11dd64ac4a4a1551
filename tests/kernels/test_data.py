"""What counts as data: forms that are one batch, and forms that are refused in words."""

from __future__ import annotations

import warnings
from collections import UserDict
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.data import as_batch, checked_batch
from tests.architectures import build, tokens, vectors

X = vectors(5)
LABELS = torch.tensor([0, 1, 2, 0, 1])
MODEL = build("mlp")


class Rows(Dataset):
    """A data set of dicts."""

    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Any:
        return self.rows[i]


class Stream(IterableDataset):
    """A data set without an end."""

    def __iter__(self):
        yield X[0]


ROWS = Rows([{"input": x} for x in X])


@pytest.mark.parametrize(
    "data",
    [
        X,
        X.numpy(),
        (X,),
        [X],
        {"input": X},
        UserDict({"input": X.numpy()}),
        TensorDataset(X),
        Subset(TensorDataset(X), range(5)),
        ROWS,
        DataLoader(TensorDataset(X), batch_size=2),
        DataLoader(ROWS, batch_size=3),
    ],
)
def test_every_form_of_data_calls_the_model_with_the_same_rows(data: Any) -> None:
    batch = checked_batch(MODEL, data)
    leaves = list(batch.values()) if isinstance(batch, dict) else batch
    (inputs,) = [leaves] if isinstance(leaves, Tensor) else leaves
    assert torch.equal(inputs, X)


@pytest.mark.parametrize(
    "data", [(X, LABELS), TensorDataset(X, LABELS), {"input": X, "labels": LABELS}]
)
def test_labels_that_the_model_does_not_take_are_refused_with_their_place(data: Any) -> None:
    with pytest.raises(InputError, match=r"Sequential takes input, .*Loss\(labels\)"):
        checked_batch(MODEL, data)


def test_labels_that_the_model_takes_stay() -> None:
    batch = {**tokens(3), "labels": torch.tensor([0, 1, 0])}
    assert checked_batch(build("bert"), batch) == batch


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "data is a NoneType"),
        ("text", "data is a str"),
        (3.0, "data is a float"),
        ({}, "no tensor"),
        ((X, LABELS[:3]), "disagree"),
        (X[:0], "zero length"),
        ({"x": X}, "missing a required argument: 'input'"),
        (Stream(), "Stream has no length"),
        (Rows([X[0], X[0, :3]]), "Rows's examples make no batch"),
        (DataLoader(TensorDataset(X), shuffle=True), "shuffle=False"),
        (DataLoader(TensorDataset(X), batch_size=2, drop_last=True), "drop_last=False"),
        (DataLoader(Rows([X[0], X[0, :3]])), "pad all examples to one length"),
    ],
)
def test_what_is_no_batch_is_named(data: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        checked_batch(MODEL, data)


def test_what_is_no_model_is_named() -> None:
    with pytest.raises(InputError, match="the model is a NoneType"):
        checked_batch(None, X)


def test_a_model_that_takes_anything_is_called_with_anything() -> None:
    class Everything(nn.Module):
        def forward(self, *inputs: Tensor, **named: Tensor) -> Tensor:
            return inputs[0]

    assert checked_batch(Everything(), (X, LABELS)) == (X, LABELS)


def test_a_batch_that_is_one_already_is_left_alone() -> None:
    batch = tokens(2)
    assert all(as_batch(batch)[name] is tensor for name, tensor in batch.items())
    assert as_batch(X) is X
    assert np.shares_memory(as_batch(X.numpy()).numpy(), X.numpy())


# -- lists of examples


def test_a_list_of_tensors_of_unequal_length_is_one_argument() -> None:
    rows = [torch.ones(2), torch.ones(3), torch.ones(1)]
    (found,) = as_batch(rows)
    assert found == rows
    (found,) = as_batch([row.numpy() for row in rows])
    assert all(torch.equal(a, b) for a, b in zip(found, rows, strict=True))


def test_a_list_of_dicts_is_one_batch() -> None:
    rows = [{"input": x[None], "texts": [str(i)], "size": (1, 2)} for i, x in enumerate(X)]
    batch = as_batch(rows)
    assert torch.equal(batch["input"], X)
    assert batch["texts"] == list("01234")
    assert batch["size"] == (1, 2)
    with pytest.raises(InputError, match=r"the list's batches do not make one .*pad all examples"):
        as_batch([{"x": torch.ones(1, 2)}, {"x": torch.ones(1, 3)}])
    with pytest.raises(InputError, match="do not make one"):
        as_batch([{"x": torch.ones(1, 2), "n": 1}, {"x": torch.ones(1, 2), "n": 2}])


def test_a_loader_of_texts_beside_tensors() -> None:
    rows = Rows([{"input": x, "name": f"n{i}"} for i, x in enumerate(X)])
    batch = as_batch(DataLoader(rows, batch_size=2))
    assert torch.equal(batch["input"], X)
    assert list(batch["name"]) == [f"n{i}" for i in range(5)]


def test_arrays_of_texts_and_objects_are_lists() -> None:
    batch = as_batch({"x": X.numpy(), "t": np.array(["a"] * 5), "o": np.array([1, None] * 2 + [2])})
    assert isinstance(batch["x"], Tensor)
    assert batch["t"] == ["a"] * 5
    assert batch["o"] == [1, None, 1, None, 2]
    assert isinstance(as_batch({"deep": {"x": X.numpy()}})["deep"]["x"], Tensor)


def quantised() -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(X.float(), 0.1, 0, torch.qint8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (X.to_sparse, r"sparse tensor \(torch.sparse_coo\).*to_dense"),
        (X.to_sparse_csr, "torch.sparse_csr"),
        (lambda: torch.nested.nested_tensor([X[0], X[0, :2]]), "nested tensor: pad it"),
        (quantised, "dequantize"),
        (lambda: X.to("meta"), "meta device"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_whose_examples_cannot_be_taken_are_refused(make: Any, message: str) -> None:
    for batch in ({"input": make()}, (make(),), make(), {"input": X, "more": [make()]}):
        with pytest.raises(InputError, match=message):
            checked_batch(MODEL, batch)


def test_a_model_without_numbers_is_refused_before_anything_else() -> None:
    with pytest.raises(InputError, match="meta device"):
        checked_batch(nn.Linear(3, 2, device="meta"), X)
