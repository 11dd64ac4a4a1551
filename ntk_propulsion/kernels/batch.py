"""Batches: what a model is called with, sliced by examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from ntk_propulsion.errors import InputError
from ntk_propulsion.models.tokens import padding_named

Batch = Mapping[str, Any] | Tensor | tuple[Any, ...] | list[Any]


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

    Raises:
        InputError: There is no tensor, N is 0, or tensors disagree on N.
    """
    named = batch.items() if isinstance(batch, Mapping) else enumerate(tree_leaves(batch))
    sizes = {name: len(t) for name, t in named if isinstance(t, Tensor) and t.dim() > 0}
    if not sizes:
        raise InputError("the batch holds no tensor: pass the dict that the model takes")
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name}: {size}" for name, size in sizes.items())
        raise InputError(f"the batch's tensors disagree on the number of examples ({listed})")
    empty = [
        str(name)
        for name, t in (
            batch.items() if isinstance(batch, Mapping) else enumerate(tree_leaves(batch))
        )
        if isinstance(t, Tensor) and t.numel() == 0
    ]
    if empty:
        raise InputError(f"the batch has examples of zero length: {', '.join(empty)} is empty")
    return next(iter(sizes.values()))


def take(batch: Batch, index: slice | list[int]) -> Batch:
    """Return the batch with only the chosen examples, in that order."""
    return tree_map(
        lambda t: t[index] if isinstance(t, Tensor) and t.dim() > 0 else t, plain(batch)
    )


def move(batch: Batch, device: torch.device, dtype: torch.dtype) -> Batch:
    """Return the batch on a device, floating tensors in a dtype."""
    return tree_map(
        lambda t: (
            t.to(device, dtype if t.is_floating_point() else None) if isinstance(t, Tensor) else t
        ),
        plain(batch),
    )


def call(model: nn.Module, batch: Batch) -> Any:
    """Call the model as the batch's type asks: keywords, one tensor, or positions."""
    args, kwargs = arguments(batch)
    with padding_named(model):
        return model(*args, **kwargs)


def arguments(batch: Batch) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and the keyword arguments that a batch stands for."""
    inputs = batch.inputs if isinstance(batch, Targeted) else batch
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return ((inputs,), {}) if isinstance(inputs, Tensor) else (tuple(inputs), {})


def plain(batch: Batch) -> Batch:
    """Return a mapping as a dict: a tokenizer's BatchEncoding is no pytree."""
    return dict(batch) if isinstance(batch, Mapping) else batch
