"""Full-batch training, step by step: what `ntk_propulsion.theory.dynamics` predicts, done.

No schedule, clipping, dropout or shuffling, and the losses are the theory's own, so that outputs
after s steps compare one to one with a prediction from the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from ntk_propulsion.errors import InputError, unknown
from ntk_propulsion.kernels.batch import Batch, batch_size, call, move, take
from ntk_propulsion.kernels.outputs import (
    OutputFunction,
    evaluate_outputs,
    resolve_outputs,
    targeted,
)
from ntk_propulsion.models.state import evaluation_mode
from ntk_propulsion.theory.inputs import Array, as_array
from ntk_propulsion.theory.losses import Loss, make_loss
from ntk_propulsion.theory.trajectory import check_rate
from ntk_propulsion.training.finetuning import TrainingDiverged

Optimiser = Callable[..., torch.optim.Optimizer]
OPTIMISERS: dict[str, Optimiser] = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}


@dataclass(frozen=True, eq=False)
class Descent:
    """A training that was done, as `theory.trajectory.Trajectory` is one predicted.

    Attributes:
        steps: (T,) numbers of steps taken when the rest was recorded.
        outputs: (T, N, O), of the training examples.
        losses: (T,), mean over the training examples.
        elsewhere: (T, M, O), of the other examples, None where there are none.
    """

    steps: list[int]
    outputs: Array
    losses: Array
    elsewhere: Array | None


def descend(
    model: nn.Module,
    batch: Batch,
    targets: ArrayLike | Tensor,
    learning_rate: float,
    steps: int,
    *,
    loss: str = "squared",
    optimiser: str | Optimiser = "sgd",
    outputs: str | OutputFunction = "logits",
    other: Batch | None = None,
    record: Iterable[int] | None = None,
    chunk: int | None = None,
) -> Descent:
    """Train whatever requires a gradient on all examples at once, in place, in evaluation mode.

    Examples:
        >>> model, x, y = torch.nn.Linear(3, 1), torch.randn(5, 3), torch.randn(5)
        >>> descend(model, x, y, learning_rate=0.1, steps=20).outputs.shape
        (21, 5, 1)

    Args:
        model: Its modes come back as they were; gradients are dropped.
        batch: What the model takes, N examples.
        targets: As for `theory.losses.make_loss`.
        learning_rate: Of every step.
        steps: How many.
        loss: ``"squared"`` (no 1/2, outputs add) or ``"cross-entropy"``, mean over examples.
        optimiser: ``"sgd"``, ``"adam"``, or what makes a torch optimiser from parameters and
            ``lr``, such as ``functools.partial(torch.optim.SGD, momentum=0.9)``.
        outputs: As in :func:`ntk_propulsion.empirical_ntk`.
        other: M examples whose outputs are recorded too.
        record: After how many steps to record, 0 to `steps`; by default after each.
        chunk: Examples that pass through the model at once; by default all.

    Raises:
        TrainingDiverged: If an output, the loss or a parameter is NaN or infinite; the model keeps
            the last parameters that were not.
        InputError: Bad batch, targets or numbers, or nothing that requires a gradient.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    recorded = _check(trained, learning_rate, steps, record)
    make = OPTIMISERS.get(optimiser) if isinstance(optimiser, str) else optimiser
    if make is None:
        raise unknown("optimiser", str(optimiser), OPTIMISERS)
    function = resolve_outputs(outputs)
    rows: dict[int, tuple[Array, float]] = {}
    elsewhere: dict[int, Array] = {}
    with _evaluating(model), np.errstate(over="ignore", invalid="ignore"):
        seen = _Examples.of(model, batch, function, chunk)
        unseen = None if other is None else _Examples.of(model, other, function, chunk)
        start = as_array(seen.outputs(), "the model's first output")
        fitted = make_loss(loss, targets, *start.shape)
        stepper, kept = make(trained, lr=learning_rate), _copied(trained)
        for step in range(steps + 1):
            stepper.zero_grad()
            f = seen.outputs(fitted if step < steps else None)
            value = float(fitted.value(f))
            if not (np.isfinite(f).all() and np.isfinite(value) and _finite(trained)):
                _put_back(trained, kept)
                raise TrainingDiverged(
                    f"an output, the loss or a parameter is NaN or infinite after step {step} "
                    f"with learning rate {learning_rate:g}: lower it"
                )
            if step in recorded:
                rows[step] = f, value
                if unseen:
                    elsewhere[step] = unseen.outputs()
            if step < steps:
                kept = _copied(trained)
                stepper.step()
    return Descent(
        list(rows),
        np.stack([f for f, _ in rows.values()]),
        np.array([value for _, value in rows.values()]),
        np.stack(list(elsewhere.values())) if elsewhere else None,
    )


@dataclass(frozen=True)
class _Examples:
    """Examples in chunks that pass through a model one after the other."""

    model: nn.Module
    function: OutputFunction
    chunks: list[tuple[slice, Batch]]

    @classmethod
    def of(
        cls, model: nn.Module, batch: Batch, function: OutputFunction, chunk: int | None
    ) -> _Examples:
        like = next(p for p in model.parameters() if p.is_floating_point())
        ready, n = targeted(function, move(batch, like.device, like.dtype)), batch_size(batch)
        size = n if chunk is None else chunk
        if size < 1:
            raise InputError(f"chunks of {size} examples: take at least one at once")
        parts = [slice(start, min(start + size, n)) for start in range(0, n, size)]
        return cls(model, function, [(part, take(ready, part)) for part in parts])

    def outputs(self, loss: Loss | None = None) -> Array:
        """Return f (N, O); with a loss, add its gradient to the parameters'."""
        found = []
        for part, batch in self.chunks:
            with torch.set_grad_enabled(loss is not None):
                n = part.stop - part.start
                f = evaluate_outputs(self.function, call(self.model, batch), n, batch)
            found.append(f.detach().to("cpu", torch.float64).numpy())
            if loss is not None:
                f.backward(torch.from_numpy(_slope(loss, found[-1], part)).to(f))
        return np.concatenate(found)


def _slope(loss: Loss, f: Array, part: slice) -> Array:
    """Return the rows of dL/df (N, O) that belong to some examples, from their outputs alone."""
    every = np.zeros_like(loss.targets)
    every[part] = f
    return loss.slope(every)[part]


def _check(
    trained: list[nn.Parameter], learning_rate: float, steps: int, record: Iterable[int] | None
) -> set[int]:
    """Return after which steps to record."""
    check_rate(learning_rate)
    if steps < 1:
        raise InputError(f"{steps} steps: train for at least 1")
    if not trained:
        raise InputError("no parameter of the model requires a gradient: nothing to train")
    recorded = set(range(steps + 1) if record is None else record)
    if not recorded or not recorded <= set(range(steps + 1)):
        raise InputError(f"record after steps from 0 to {steps}, not {sorted(recorded)}")
    return recorded


def _copied(parameters: list[nn.Parameter]) -> list[Tensor]:
    return [p.detach().clone() for p in parameters]


def _finite(parameters: list[nn.Parameter]) -> bool:
    return all(bool(p.isfinite().all()) for p in parameters)


@torch.no_grad()
def _put_back(parameters: list[nn.Parameter], values: list[Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, give it back in its own, and drop the gradients."""
    try:
        with evaluation_mode(model):
            yield
    finally:
        model.zero_grad(set_to_none=True)
