"""What a model predicts on examples of a task, and how it scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ntk_propulsion.errors import InputError
from ntk_propulsion.models.loaded import LoadedModel
from ntk_propulsion.models.state import evaluation_mode
from ntk_propulsion.models.tokens import batches, padding_named
from ntk_propulsion.tasks import Example, Task


@dataclass(frozen=True)
class Evaluation:
    """What a model predicts and how it scores.

    Attributes:
        metrics: Scores by name.
        predictions: (N,) class indices, or targets.
        logits: (N, O), on the CPU.
    """

    metrics: dict[str, float]
    predictions: list[int] | list[float]
    logits: Tensor


@torch.no_grad()
def evaluate(
    loaded: LoadedModel, task: Task, examples: Sequence[Example], *, batch_size: int = 32
) -> Evaluation:
    """Predict examples in evaluation mode, batched by length, and score the predictions.

    Raises:
        InputError: There are no examples, or the model has not as many outputs as the task needs.
    """
    logits = torch.empty(len(examples), task.num_labels, dtype=loaded.model.dtype)
    with evaluation_mode(loaded.model) as model:
        for chosen, batch in batches(loaded, examples, batch_size):
            with padding_named(model):
                made = model(**batch).logits.cpu()
            check_outputs(loaded, task, made.shape[-1])
            logits[chosen] = made
    predictions = task.facts.predictions(logits).tolist()
    return Evaluation(task.score(predictions, [e.label for e in examples]), predictions, logits)


def check_outputs(loaded: LoadedModel, task: Task, outputs: int) -> None:
    """Check that a model has as many outputs as a task needs: one would pass for each of two.

    Raises:
        InputError: It has not.
    """
    if outputs != task.num_labels:
        raise InputError(
            f"model {loaded.name!r} has {outputs} outputs, task {task.name!r} needs "
            f"{task.num_labels}: load the model for this task"
        )
