"""A model made ready for kernels, and given back as it was."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.models.state import evaluation_mode


@contextmanager
def prepared(model: nn.Module, dtype: torch.dtype, trained: set[str]) -> Iterator[nn.Module]:
    """Give the model in evaluation mode, with gradients for exactly the ``trained`` parameters.

    A model in another dtype is worked on as a copy. On leaving, also by an error, the model has the
    mode, requires_grad, gradients and buffers that it came with.

    Raises:
        InputError: A batch normalisation has no running statistics: it would mix the examples.
    """
    for name, module in model.named_modules():
        normalises = isinstance(module, nn.modules.batchnorm._BatchNorm)
        if normalises and not module.track_running_stats:
            raise InputError(
                f"module {name!r} normalises by the statistics of the batch, which mixes the "
                "examples: use running statistics"
            )
    if any(p.is_floating_point() and p.dtype != dtype for p in model.parameters()):
        model = copy.deepcopy(model).to(dtype)
    grads = {p: p.requires_grad for p in model.parameters()}
    buffers = {b: (b._version, b.clone()) for b in model.buffers()}
    try:
        for name, p in model.named_parameters():
            p.requires_grad_(name in trained)
        with evaluation_mode(model), torch.enable_grad():
            yield model
    finally:
        for p, required in grads.items():
            p.requires_grad_(required)
        with torch.no_grad():
            for buffer, (version, value) in buffers.items():
                if buffer._version != version:
                    buffer.copy_(value)
