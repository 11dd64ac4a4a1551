"""Batches: their size, some of their examples, and how a model is called with them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from ntk_propulsion import empirical_ntk
from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.batch import Targeted, arguments, batch_size, call, move, take
from tests.tiny_folders import CONFIGS

X, Y = torch.arange(12.0).view(4, 3), torch.arange(4)
BATCHES: dict[str, Any] = {
    "dict": {"x": X, "y": Y, "flag": True},
    "tensor": X,
    "tuple": (X, Y),
    "nested": (X, {"y": [Y, X]}),
    "scalar beside": {"x": X, "scale": torch.tensor(2.0)},
}


def tensors(batch: Any) -> list[Tensor]:
    """The tensors that hold examples."""
    from torch.utils._pytree import tree_leaves

    return [t for t in tree_leaves(batch) if isinstance(t, Tensor) and t.dim() > 0]


@pytest.mark.parametrize("name", BATCHES)
def test_size_is_that_of_the_first_dimension(name: str) -> None:
    assert batch_size(BATCHES[name]) == 4


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({}, "no tensor"),
        ({"a": "text"}, "no tensor"),
        ({"a": X, "b": Y[:2]}, "disagree on the number of examples .a: 4, b: 2."),
        ((X, Y[:1]), "disagree"),
        ({"a": X[:0]}, "zero length: a is empty"),
        ({"a": torch.zeros(3, 0)}, "zero length: a is empty"),
    ],
)
def test_batches_without_a_size_are_refused(batch: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        batch_size(batch)


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("index", [slice(1, 3), [2, 0]])
def test_some_examples_of_every_tensor(name: str, index: slice | list[int]) -> None:
    batch = BATCHES[name]
    for part, whole in zip(tensors(take(batch, index)), tensors(batch), strict=True):
        assert torch.equal(part, whole[index])


def test_targets_are_taken_with_their_examples() -> None:
    part = take(Targeted({"x": X}, Y), [3, 1])
    assert isinstance(part, Targeted)
    assert torch.equal(part.targets, torch.tensor([3, 1]))
    assert torch.equal(part.inputs["x"], X[[3, 1]])


def test_only_floating_tensors_change_their_dtype() -> None:
    moved = move(BATCHES["dict"], torch.device("cpu"), torch.float64)
    assert (moved["x"].dtype, moved["y"].dtype, moved["flag"]) == (torch.float64, Y.dtype, True)


class Both(nn.Module):
    """Says how it was called."""

    def forward(self, *args: Any, **kwargs: Any) -> tuple:
        return args, kwargs


@pytest.mark.parametrize("targeted", [False, True])
def test_a_batch_is_keywords_one_tensor_or_positions(targeted: bool) -> None:
    wrap = (lambda batch: Targeted(batch, Y)) if targeted else (lambda batch: batch)
    for batch, expected in (
        ({"x": X}, ((), {"x": X})),
        (X, ((X,), {})),
        ((X, Y), ((X, Y), {})),
        ([X, Y], ((X, Y), {})),
    ):
        assert str(arguments(wrap(batch))) == str(expected)
        assert str(call(Both(), wrap(batch))) == str(expected)


# -- per-example things that are no tensors

RAGGED = [torch.ones(2), torch.ones(3), torch.ones(1), torch.ones(2)]
LISTS: dict[str, Any] = {
    "lengths": [3, 1, 2, 3],
    "texts": ["a", "b", None, "d"],
    "lists": [[1], [], [2, 3], [4]],
    "tensors": RAGGED,
    "numbers": [torch.tensor(1.0), torch.tensor(2.0), torch.tensor(3.0), torch.tensor(4.0)],
}


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("index", [slice(1, 3), [2, 0], [0, 0]])
def test_a_list_of_n_is_taken_by_example(name: str, index: slice | list[int]) -> None:
    held = LISTS[name]
    expected = held[index] if isinstance(index, slice) else [held[i] for i in index]
    for batch, part in (
        ({"x": X, "held": held}, lambda b: b["held"]),
        ((X, held), lambda b: b[1]),
        ([X, held], lambda b: b[1]),
        ({"x": X, "deeper": {"held": held}}, lambda b: b["deeper"]["held"]),
        (Targeted((X, held), Y), lambda b: b.inputs[1]),
    ):
        assert batch_size(batch) == 4
        found = part(take(batch, index))
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            assert torch.equal(a, b) if isinstance(a, Tensor) else a == b


@pytest.mark.parametrize(
    "held",
    [(4, 4, 4, 4), [1, 2, 3], "abcd", ((1, 2), (3, 4)), [Y, X, Y, X], None, {"a": 1}, 4],
)
def test_other_things_are_constants_or_tensors_of_the_batch(held: Any) -> None:
    batch = {"x": X, "held": held}
    assert batch_size(batch) == 4
    found = take(batch, slice(0, 2))["held"]
    if isinstance(held, list) and isinstance(held[0], Tensor):
        assert [len(t) for t in found] == [2] * 4
    else:
        assert found == held


@pytest.mark.parametrize(
    ("batch", "n"),
    [
        (([torch.ones(2), torch.ones(5), torch.ones(3)],), 3),
        ({"pictures": [torch.ones(3, 4, 4), torch.ones(1, 4, 4)]}, 2),
        ({"texts": ["a", "b"]}, 2),
        (([X, Y],), 4),
        (({"a": [X, Y]},), 4),
    ],
)
def test_without_a_tensor_beside_them_lists_say_n(batch: Any, n: int) -> None:
    assert batch_size(batch) == n
    some = take(batch, [n - 1, 0])
    assert batch_size(some) == 2
    assert batch_size(take(some, slice(0, 1))) == 1


def test_a_model_is_called_with_plain_lists_on_the_device_of_the_batch() -> None:
    batch = move(take((RAGGED,), slice(1, 3)), torch.device("cpu"), torch.float64)
    ((found,), _) = arguments(batch)
    assert type(found) is list
    assert [(len(t), t.dtype) for t in found] == [(3, torch.float64), (1, torch.float64)]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"x": X, "held": [Y[:3], Y[:3]]}, r"held.0: 3"),
        ((X, (Y[:3],)), r"1.0: 3"),
        ({"texts": []}, "zero length: a list is empty"),
    ],
)
def test_tensors_within_that_have_other_rows_are_refused(batch: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        batch_size(batch)


def test_complex_tensors_change_their_precision() -> None:
    z = torch.randn(4, 2, dtype=torch.complex64)
    moved = move({"z": z, "x": X, "held": [X, z]}, torch.device("cpu"), torch.float64)
    assert moved["z"].dtype == moved["held"][1].dtype == torch.complex128
    assert torch.equal(moved["z"].real, z.real.double())


@pytest.mark.parametrize("way", ["moved", "taken"])
def test_tensors_made_under_inference_mode_can_be_differentiated(way: str) -> None:
    with torch.inference_mode():
        batch: Any = {"x": torch.randn(4, 3)}
        if way == "moved":
            batch = move(batch, torch.device("cpu"), torch.float32)
    if way == "taken":
        batch = take(batch, slice(0, 2))
    weight = nn.Parameter(torch.ones(3))
    assert torch.autograd.grad((batch["x"] * weight).sum(), weight)[0].shape == (3,)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_decoder_without_a_padding_token_says_what_to_set(kind: str) -> None:
    model = AutoModelForSequenceClassification.from_config(CONFIGS[kind](pad_token_id=None)).eval()
    batch = {"input_ids": torch.randint(4, 9, (3, 5))}
    with pytest.raises(InputError, match=r"set model\.config\.pad_token_id") as caught:
        empirical_ntk(model, batch, ["full"])
    assert "\n" not in str(caught.value)
    model.config.pad_token_id = 1
    assert empirical_ntk(model, batch, ["full"])["full"].matrix.isfinite().all()


def test_other_errors_of_a_model_stay_as_they_are() -> None:
    class Wrong(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("of its own")

    with pytest.raises(ValueError, match=r"^of its own$") as caught:
        call(Wrong(), torch.ones(2, 2))
    assert not isinstance(caught.value, InputError)
