"""Batches: what a model is called with, sliced by examples.

A tensor holds the examples in its first dimension. A *list* of length N beside them (numbers,
texts, None, lists or tensors of unequal length) holds one entry an example; a tuple is a constant,
an image's size say, whose tensors alone are sliced. A list of tensors that all have N rows is one
of tensors of the batch, as a tuple of them would be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.dtypes import matching
from ntk_propulsion.models.tokens import padding_named

Batch = Mapping[str, Any] | Tensor | tuple[Any, ...] | list[Any]


class Examples(list[Any]):
    """A list with one entry an example, known as such: some examples of one may be equally long."""


class Targeted(NamedTuple):
    """A batch and what the outputs need of each of its examples: labels, or positions.

    Attributes:
        inputs: What the model is called with.
        targets: N rows.
    """

    inputs: Batch
    targets: Tensor


def batch_size(batch: Batch) -> int:
    """Return N, the size of the first dimension that all tensors of the batch share.

    Without a tensor, N is the length of its lists.

    Raises:
        InputError: There is no tensor, N is 0, or tensors disagree on N.
    """
    n = _count(batch)
    named = _tensors(batch, n)
    sizes = {name: len(t) for name, t in named.items() if t.dim() > 0}
    if n is None:
        raise InputError("the batch holds no tensor: pass the dict that the model takes")
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name}: {size}" for name, size in sizes.items())
        raise InputError(f"the batch's tensors disagree on the number of examples ({listed})")
    empty = [name for name, t in named.items() if t.numel() == 0]
    if empty or n == 0:
        listed = ", ".join(empty) or "a list"
        raise InputError(f"the batch has examples of zero length: {listed} is empty")
    return n


def take(batch: Batch, index: slice | list[int]) -> Batch:
    """Return the batch with only the chosen examples, in that order: of tensors and of lists.

    They are copies: what a model writes into its input stays there.
    """
    n, whole = _count(batch), _whole(batch)

    def is_leaf(value: Any) -> bool:
        return isinstance(value, list) and id(value) not in whole and by_example(value, n)

    def some(value: Any) -> Any:
        if isinstance(value, Tensor):
            value = _usable(value)
            return value[index].clone() if value.dim() > 0 else value.clone()
        if is_leaf(value):
            chosen = value[index] if isinstance(index, slice) else [value[i] for i in index]
            return Examples(
                tree_map(lambda v: _usable(v).clone() if isinstance(v, Tensor) else v, chosen)
            )
        return value

    return tree_map(some, plain(batch), is_leaf=is_leaf)


def move(batch: Batch, device: torch.device, dtype: torch.dtype) -> Batch:
    """Return the batch on a device, floating tensors in a dtype, complex ones in its complex one.

    Tensors that were made under ``torch.inference_mode`` are copied: autograd takes no others.
    """

    def moved(value: Any) -> Any:
        if isinstance(value, Examples):
            return Examples(tree_map(moved, list(value)))
        if not isinstance(value, Tensor):
            return value
        value = _usable(value)
        return value.to(device, matching(value.dtype, dtype))

    return tree_map(moved, plain(batch))


def _usable(tensor: Tensor) -> Tensor:
    """A tensor that autograd may keep for a backward pass."""
    if not tensor.is_inference():
        return tensor
    with torch.inference_mode(False):
        return tensor.clone()


def call(model: nn.Module, batch: Batch) -> Any:
    """Call the model as the batch's type asks: keywords, one tensor, or positions."""
    args, kwargs = arguments(batch)
    with padding_named(model):
        return model(*args, **kwargs)


def arguments(batch: Batch) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and the keyword arguments that a batch stands for."""
    inputs = batch.inputs if isinstance(batch, Targeted) else batch
    inputs = tree_map(lambda v: list(v) if isinstance(v, Examples) else v, plain(inputs))
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return ((inputs,), {}) if isinstance(inputs, Tensor) else (tuple(inputs), {})


def plain(batch: Batch) -> Batch:
    """Return a mapping as a dict: a tokenizer's BatchEncoding is no pytree."""
    return dict(batch) if isinstance(batch, Mapping) else batch


def _whole(batch: Batch) -> set[int]:
    """The batch itself is never one entry an example: a list is of positional arguments."""
    inputs = batch.inputs if isinstance(batch, Targeted) else batch
    return {id(batch), id(inputs)}


def _values(batch: Batch) -> dict[str, Any]:
    """What the model is called with, by name or position."""
    if isinstance(batch, Targeted):
        return {**_values(batch.inputs), "targets": batch.targets}
    if isinstance(batch, Tensor):
        return {"0": batch}
    named = batch.items() if isinstance(batch, Mapping) else enumerate(batch)
    return {str(name): value for name, value in named}


def _count(batch: Batch) -> int | None:
    """N by the first tensor outside of lists, or by the first list; None if there is neither."""
    leaves = tree_leaves(tuple(_values(batch).values()), is_leaf=lambda v: isinstance(v, list))
    for leaf in leaves:
        if isinstance(leaf, Tensor) and leaf.dim() > 0:
            return len(leaf)
    for leaf in leaves:
        if isinstance(leaf, list):
            rows = None if isinstance(leaf, Examples) else _rows(leaf)
            return len(leaf) if rows is None or len(rows) > 1 else rows.pop()
    return None


def _rows(value: list[Any]) -> set[int] | None:
    """The numbers of rows of a list of tensors; None if it is none."""
    if not value or not all(isinstance(t, Tensor) and t.dim() > 0 for t in value):
        return None
    return {len(t) for t in value}


def by_example(value: list[Any], n: int | None) -> bool:
    """Return whether a list beside N examples holds one entry an example."""
    return isinstance(value, Examples) or (len(value) == n and _rows(value) != {n})


def _tensors(batch: Batch, n: int | None) -> dict[str, Tensor]:
    """The tensors whose first dimension must be N, by name or position."""
    found: dict[str, Tensor] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, Tensor):
            found[name] = value
        elif not (isinstance(value, list) and by_example(value, n)):
            for key, each in _entries(value):
                add(f"{name}.{key}", each)

    for name, value in _values(batch).items():
        add(name, value)
    return found


def _entries(value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, list | tuple):
        return enumerate(value)
    return value.items() if isinstance(value, Mapping) else ()
