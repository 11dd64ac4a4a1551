"""Fingerprints of data and of models: what a kernel is of."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.utils._pytree import tree_flatten

from ntk_propulsion.runs.fingerprint import add_value

_DIGITS = 32


def data_fingerprint(batch: Any) -> str:
    """Return a hash of a batch's tensors and other values, their names, order and examples."""
    leaves, tree = tree_flatten(dict(batch) if isinstance(batch, Mapping) else batch)
    digest = hashlib.sha256(str(tree).encode())
    for leaf in leaves:
        add_value(digest, leaf)
    return digest.hexdigest()[:_DIGITS]


def subset_fingerprint(whole: str, examples: Sequence[int]) -> str:
    """Return the fingerprint of some examples of a batch, in their order, from the batch's own."""
    return hashlib.sha256(f"{whole} {list(examples)}".encode()).hexdigest()[:_DIGITS]


def model_fingerprint(model: nn.Module) -> str:
    """Return a hash of a model's parameters, buffers and extra state, names and values."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        add_value(digest, value)
    return digest.hexdigest()[:_DIGITS]
