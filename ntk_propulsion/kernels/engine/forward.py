"""A forward pass of a stranger's model: its outputs, or its failure in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.batch import Batch, call
from ntk_propulsion.kernels.outputs import OutputFunction, evaluate_outputs


def unless_memory(error: Exception) -> None:
    """Raise the error again if memory ran out: that is no property of the model."""
    exhausted = isinstance(error, MemoryError | torch.OutOfMemoryError)
    if exhausted or "can't allocate memory" in str(error):
        raise error


def first_line(error: Exception) -> str:
    """Return an error's type and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def evaluate(model: nn.Module, batch: Batch, n: int, outputs: OutputFunction) -> Tensor:
    """Return a model's outputs on n examples, (n, O), with their graph.

    Raises:
        InputError: The model or the output function fails on them, or gives something else.
    """
    examples = "one example alone" if n == 1 else f"{n} examples at once"
    with said_as_input(f"the model does not run on {examples} (call it so to see where)"):
        output = call(model, batch)
    with said_as_input(f"the outputs' function does not run on {examples}"):
        values = evaluate_outputs(outputs, output, n, batch)
    if not values.is_floating_point():
        raise InputError(
            f"the outputs are {values.dtype}, which have no kernel: choose real numbers with "
            "outputs= a function of the model's output (the real and imaginary parts?)"
        )
    return values


@contextmanager
def said_as_input(what: str) -> Iterator[None]:
    """Say whatever a stranger's code raises as one line of bad input."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        unless_memory(error)
        raise InputError(f"{what}: {first_line(error)}") from error
