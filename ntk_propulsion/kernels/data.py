"""What callers may give as data, made the batch that the engine takes.

What is one entry an example and no tensor (lengths, texts) stands in a list: see `batch`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten
from torch.utils.data import DataLoader, Dataset, RandomSampler, TensorDataset, default_collate

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.batch import Batch, arguments, batch_size, by_example, plain
from ntk_propulsion.models.differentiable import check_differentiable

Data = Batch | np.ndarray | Dataset[Any] | DataLoader[Any]
"""The dict that a model takes, a tensor, a tuple of positional arguments, or a set of these."""

_COLLATING = (TypeError, RuntimeError, ValueError, KeyError, IndexError)


def as_batch(data: Data) -> Batch:
    """Return all examples of the data as one batch, in the caller's order.

    Args:
        data: The dict that the model takes, a tensor, or a tuple or list of positional arguments;
            arrays of numpy count as tensors, those of other objects as lists. Or a list of tensors
            of unequal length, one an example, that the model takes as its one argument; a list of
            dicts, each of some examples; a data set of torch; a DataLoader that does not shuffle.

    Raises:
        InputError: It is none of these, or its examples do not fit into one batch.
    """
    if isinstance(data, TensorDataset):
        return data.tensors[0] if len(data.tensors) == 1 else data.tensors
    if isinstance(data, DataLoader):
        return _loaded(data)
    if isinstance(data, Dataset):
        return _collated(data)
    if isinstance(data, np.ndarray):
        whole = _as_tensor(data)
        return whole if isinstance(whole, Tensor) else (whole,)
    if isinstance(data, Mapping):
        return {name: tree_map(_as_tensor, value) for name, value in data.items()}
    if isinstance(data, Tensor):
        return data
    if isinstance(data, list) and data and all(isinstance(each, Mapping) for each in data):
        return _joined([as_batch(each) for each in data], "the list")
    if isinstance(data, tuple | list):
        made = tree_map(_as_tensor, data)
        return (made,) if isinstance(data, list) and _ragged(made) else made
    kind = f"{type(data).__module__}.{type(data).__qualname__}".removeprefix("builtins.")
    raise InputError(
        f"data is a {kind}: give the dict that the model takes, a tensor, a tuple "
        "of positional arguments, a torch Dataset or a DataLoader"
    )


def checked_batch(model: nn.Module, data: Data) -> Batch:
    """Return the data as a batch that the model can be called with.

    Raises:
        InputError: As :func:`as_batch`; the model can have no gradients; tensors disagree on N,
            there are none, or they are sparse, nested or quantised; the model's ``forward`` takes
            other arguments.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"the model is a {type(model).__name__}: give a torch.nn.Module")
    check_differentiable(model)
    batch = as_batch(data)
    _check_dense(batch)
    batch_size(batch)
    args, kwargs = arguments(batch)
    try:
        signature = inspect.signature(model.forward)
    except ValueError:  # written in C: the call itself will say
        return batch
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        takes = ", ".join(signature.parameters) or "nothing"
        raise InputError(
            f"{type(model).__name__} takes {takes}, and cannot be called with this batch ({error})."
            " Labels stay out of it: a loss takes them by outputs=Loss(labels)"
        ) from None
    return batch


def _check_dense(batch: Batch) -> None:
    for tensor in tree_leaves(plain(batch)):
        if not isinstance(tensor, Tensor):
            continue
        if tensor.is_nested:
            raise InputError(
                "the batch holds a nested tensor: pad it (torch.nested.to_padded_tensor), or give "
                "a list of tensors if the model takes one"
            )
        if tensor.layout != torch.strided:
            raise InputError(
                f"the batch holds a sparse tensor ({tensor.layout}), whose examples cannot be "
                "taken: give it as .to_dense()"
            )
        if tensor.is_quantized:
            raise InputError("the batch holds a quantised tensor: give it as .dequantize()")
        if tensor.is_meta:
            raise InputError("the batch holds a tensor on the meta device, which has no numbers")


def _as_tensor(value: Any) -> Any:
    """An array of numpy as a tensor, or as a list where torch has no such numbers (texts)."""
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.kind in "OSUMm":
        return value.tolist()
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"an array of the data makes no tensor ({error}): give a tensor") from None


def _ragged(data: list[Any]) -> bool:
    """Whether a list is of tensors of unequal length: examples, not positional arguments."""
    tensors = all(isinstance(t, Tensor) and t.dim() > 0 for t in data)
    return tensors and len({len(t) for t in data}) > 1


def _collated(data: Dataset[Any]) -> Batch:
    name = type(data).__name__
    if not hasattr(data, "__len__"):
        raise InputError(f"{name} has no length: give a data set of N examples, or one batch")
    try:
        return default_collate([data[i] for i in range(len(data))])
    except _COLLATING as error:
        raise InputError(f"{name}'s examples make no batch ({error}): give one batch") from error


def _loaded(loader: DataLoader[Any]) -> Batch:
    if isinstance(loader.sampler, RandomSampler):
        raise InputError("the DataLoader shuffles, so a kernel's rows had no order: shuffle=False")
    if loader.drop_last and len(loader.dataset) % (loader.batch_size or 1):  # type: ignore[arg-type]
        raise InputError("the DataLoader drops its last examples: drop_last=False")
    batches = [as_batch(batch) for batch in loader]
    if not batches:
        raise InputError("the DataLoader is empty: a kernel needs examples")
    return _joined(batches, "the DataLoader")


def _joined(batches: Sequence[Batch], what: str) -> Batch:
    """One batch of several: tensors and lists of examples one after another, constants once."""
    sizes = [batch_size(batch) for batch in batches]
    found = [
        tree_flatten(batch, is_leaf=_lists_of(batch, n))
        for batch, n in zip(batches, sizes, strict=True)
    ]
    leaves, trees = zip(*found, strict=True)
    try:
        joined = [_one(parts) for parts in zip(*leaves, strict=True)]
    except (TypeError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{what}'s batches do not make one ({error}): pad all examples to one length"
        ) from error
    return tree_unflatten(joined, trees[0])


def _lists_of(batch: Batch, n: int) -> Callable[[Any], bool]:
    return lambda value: value is not batch and isinstance(value, list) and by_example(value, n)


def _one(parts: tuple[Any, ...]) -> Any:
    """Several batches' entries at one place as one."""
    if all(isinstance(part, Tensor) and part.dim() > 0 for part in parts):
        return torch.cat(parts)
    if all(isinstance(part, list) for part in parts):
        return [each for part in parts for each in part]
    if any(isinstance(part, Tensor | list) for part in parts) or any(p != parts[0] for p in parts):
        raise ValueError(f"{parts[0]!r} beside {parts[-1]!r}")
    return parts[0]
