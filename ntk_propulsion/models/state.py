"""A model in evaluation mode, and back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[nn.Module]:
    """Put a model into evaluation mode; on leaving, also by an error, each module has its own back.

    A model may come with a frozen part in evaluation mode inside a part that trains:
    ``model.train(model.training)`` would flatten that. Nor is ``eval()`` called, which some layers
    make their own: they fold their weights there, or refuse (exported programs).

    Examples:
        >>> model = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
        >>> with evaluation_mode(model):
        ...     [module.training for module in model]
        [False, False]
        >>> [module.training for module in model]
        [True, False]
    """
    modes = {module: module.training for module in model.modules()}
    try:
        for module in modes:
            module.training = False
        yield model
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """Put a model into evaluation mode with no parameter in the graph; then as it was."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with evaluation_mode(model):
        model.requires_grad_(False)
        try:
            yield model
        finally:
            for parameter in trained:
                parameter.requires_grad_(True)
