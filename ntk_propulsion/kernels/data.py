"""What callers may give as data, made the batch that the engine takes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten
from torch.utils.data import DataLoader, Dataset, RandomSampler, TensorDataset, default_collate

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.batch import Batch, arguments, batch_size

Data = Batch | np.ndarray | Dataset[Any] | DataLoader[Any]
"""The dict that a model takes, a tensor, a tuple of positional arguments, or a set of these."""

_COLLATING = (TypeError, RuntimeError, ValueError, KeyError, IndexError)


def as_batch(data: Data) -> Batch:
    """Return all examples of the data as one batch, in the caller's order.

    Args:
        data: The dict that the model takes, a tensor, or a tuple or list of positional arguments;
            arrays of numpy count as tensors. Or a data set of torch, or a DataLoader that does not
            shuffle.

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
        return torch.as_tensor(data)
    if isinstance(data, Mapping):
        return {name: _as_tensor(value) for name, value in data.items()}
    if isinstance(data, Tensor):
        return data
    if isinstance(data, tuple | list):
        return tree_map(_as_tensor, data)
    kind = f"{type(data).__module__}.{type(data).__qualname__}".removeprefix("builtins.")
    raise InputError(
        f"data is a {kind}: give the dict that the model takes, a tensor, a tuple "
        "of positional arguments, a torch Dataset or a DataLoader"
    )


def checked_batch(model: nn.Module, data: Data) -> Batch:
    """Return the data as a batch that the model can be called with.

    Raises:
        InputError: As :func:`as_batch`; tensors disagree on N, or there are none; the model's
            ``forward`` takes other arguments.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"the model is a {type(model).__name__}: give a torch.nn.Module")
    batch = as_batch(data)
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


def _as_tensor(value: Any) -> Any:
    return torch.as_tensor(value) if isinstance(value, np.ndarray) else value


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
    leaves, trees = zip(*map(tree_flatten, batches), strict=True)
    try:
        joined = [torch.cat(parts) for parts in zip(*leaves, strict=True)]
    except (TypeError, RuntimeError, ValueError) as error:
        raise InputError(
            f"the DataLoader's batches do not make one ({error}): pad all examples to one length"
        ) from error
    return tree_unflatten(joined, trees[0])
