"""From what a caller may say of outputs to a function, and from a model's output to (N, O)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ntk_propulsion.errors import InputError, unknown
from ntk_propulsion.kernels.batch import Batch, Targeted, plain
from ntk_propulsion.kernels.outputs._kinds import OUTPUTS, BatchOutputs, Kind, OutputFunction
from ntk_propulsion.kernels.outputs.column import Column

OutputsLike = str | int | OutputFunction
"""A name, a column of the logits, a kind, or any function from a model's output to (N, O)."""


def resolve_outputs(outputs: OutputsLike) -> OutputFunction:
    """Return the function from a model's output to (N, O).

    Args:
        outputs: ``"logits"``, ``"margin"`` (O = 1), ``"sum"`` (O = 1), ``"loss"`` (O = 1), a
            column's number (O = 1), a function of the model's output, or a :class:`BatchOutputs`.

    Raises:
        InputError: The name is unknown, or it is no outputs at all.
    """
    if isinstance(outputs, str):
        if outputs not in OUTPUTS:
            raise unknown("outputs", outputs, OUTPUTS)
        return OUTPUTS[outputs]
    if isinstance(outputs, int | np.integer) and not isinstance(outputs, bool):
        return Column(int(outputs))
    for kind in OUTPUTS.values():
        if outputs is type(kind):  # type: ignore[comparison-overlap]
            return kind
    if not callable(outputs) or isinstance(outputs, type):
        raise InputError(
            f"outputs={outputs!r} is none: give a name ({', '.join(OUTPUTS)}), a column of the "
            "logits (0, 1, ...), or a function from the model's output to a tensor (examples, "
            "outputs)"
        )
    return outputs


def output_goals(outputs: OutputsLike, targets: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return what the outputs of N examples should become, (N, O); None if nothing is known.

    Args:
        outputs: As :func:`resolve_outputs` takes them.
        targets: What the logits should become, (N, C), as `tasks.Task.targets` gives them.
    """
    kind = resolve_outputs(outputs)
    return kind.goals(targets) if isinstance(kind, Kind) else None


def targeted(function: OutputFunction, batch: Batch) -> Batch:
    """Return the batch with the targets that the outputs need, if they need any.

    Raises:
        InputError: An example lacks what the outputs need.
    """
    if not isinstance(function, BatchOutputs):
        return batch
    targets = function.targets(batch)
    device = next((t.device for t in tree_leaves(batch) if isinstance(t, Tensor)), targets.device)
    return Targeted(plain(batch), targets.to(device))


def evaluate_outputs(function: OutputFunction, output: Any, n: int, batch: Batch) -> Tensor:
    """Apply an output function and check that it gives (n, O).

    Args:
        function: What :func:`resolve_outputs` returned.
        output: The model's output on the batch.
        n: The batch's examples.
        batch: What :func:`targeted` returned, or some of its examples.

    Raises:
        InputError: It gives something else.
    """
    if isinstance(function, BatchOutputs):
        assert isinstance(batch, Targeted)
        values = function(output, batch.targets)
    else:
        values = function(output)
    if not isinstance(values, Tensor) or values.dim() != 2 or values.shape[0] != n:
        given = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise InputError(
            f"outputs must be a tensor ({n} examples, O outputs) and are {given}: choose rows and "
            "outputs with outputs= a function of the model's output"
        )
    return values
