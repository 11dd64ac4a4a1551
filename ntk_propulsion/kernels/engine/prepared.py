"""A model made ready for kernels, and given back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.engine.unchanged import unchanged
from ntk_propulsion.models.differentiable import check_differentiable
from ntk_propulsion.models.state import evaluation_mode


@contextmanager
def prepared(model: nn.Module, dtype: torch.dtype, trained: set[str]) -> Iterator[nn.Module]:
    """Give the model in evaluation mode, with gradients for exactly the ``trained`` parameters.

    It works in ``dtype`` (complex parameters in the complex format of it), and each forward pass
    starts from the model as the caller gave it: see `unchanged`. On leaving, also by an error, each
    parameter, buffer and attribute is the object that it was, with its numbers, and the model has
    the modes, hooks, requires_grad and gradients that it came with. Works under ``torch.no_grad``
    and ``torch.inference_mode`` too.

    Raises:
        InputError: A batch normalisation has no running statistics: it would mix the examples; the
            model can have no gradients (`check_differentiable`); it cannot be converted, or passes
            leave it in different states.
    """
    check_differentiable(model)
    for name, module in model.named_modules():
        normalises = isinstance(module, nn.modules.batchnorm._BatchNorm)
        if normalises and not module.track_running_stats:
            raise InputError(
                f"module {name!r} normalises by the statistics of the batch, which mixes the "
                "examples: use running statistics"
            )
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        evaluation_mode(model),
        _gradients(model, trained),
        unchanged(model, dtype),
    ):
        yield model


@contextmanager
def _gradients(model: nn.Module, trained: set[str]) -> Iterator[None]:
    """Let exactly some parameters require a gradient, and keep what gradients there are."""
    came = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    try:
        for name, p in model.named_parameters():
            if name in trained and not (p.is_floating_point() or p.is_complex()):
                raise InputError(
                    f"parameter {name!r} ({p.dtype}) can have no gradient: leave it out"
                )
            p.requires_grad_(name in trained)
            p.grad = None
        yield
    finally:
        for p, required, gradient in came:
            p.requires_grad_(required)
            p.grad = gradient
