"""A model that is about to be trained, how its kernel is taken, and how a prediction compares.

What the studies of prediction and of speed share: the kernel is of what really trains, a LoRA's
with the factors that it drew, and every training is of a copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from analysis.study import Row
from analysis.subject import Subject
from ntk_propulsion.descent import Descent, descend
from ntk_propulsion.encoding import encode
from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.batch import Batch
from ntk_propulsion.kernels.kernel import Kernel
from ntk_propulsion.kernels.linearization import model_outputs
from ntk_propulsion.kernels.ntk import empirical_ntk
from ntk_propulsion.kernels.tunings import Propulsion
from ntk_propulsion.results import targets_of
from ntk_propulsion.theory.agreement import agreement
from ntk_propulsion.theory.inputs import as_array
from ntk_propulsion.trajectories.methods import apply_method, twin

SHARE = 0.5  # of the stable learning rate, at which all trainings run


@dataclass(frozen=True, eq=False)
class Start:
    """A model at theta_0 with what it will be trained on: what requires a gradient trains.

    Attributes:
        model: Left as it is.
        batch: N training examples.
        targets: (N, O).
        outputs: As in :func:`ntk_propulsion.empirical_ntk`.
        memory: For the kernels.
    """

    model: nn.Module
    batch: Batch
    targets: np.ndarray
    outputs: str = "logits"
    memory: str | None = None

    def f0(self, batch: Batch | None = None) -> np.ndarray:
        """Return the outputs at the start, of the training examples or of others."""
        found = model_outputs(self.model, self.batch if batch is None else batch, self.outputs)
        return as_array(found, "f_0")

    def kernel(self, others: Batch | None = None, **more: Any) -> Kernel:
        """Return the kernel of what trains: of the examples, or of others with them."""
        return empirical_ntk(
            self.model,
            self.batch if others is None else others,
            ["trainable"],
            self.outputs,
            other=None if others is None else self.batch,
            memory=self.memory,
            **more,
        )["trainable"]

    def descend(self, learning_rate: float, steps: int, **more: Any) -> Descent:
        """Train a copy on all examples at once."""
        chosen = {"outputs": self.outputs, **more}
        return descend(twin(self.model), self.batch, self.targets, learning_rate, steps, **chosen)


def start_of(at: Subject, method: str, examples: int) -> Start:
    """Return a subject's model made to train by a method, on texts that its head did not see.

    Raises:
        InputError: The task has no classes, or the method cannot be trained.
    """
    settings, task = at.settings, at.materials.task
    if task.kind != "classification" or settings.outputs == "sum":
        raise InputError(
            f"task {task.name!r} with outputs {settings.outputs!r} has no classes to train on: "
            "name a classification and margin or logits"
        )
    drawn = at.unseen(examples)
    targets = targets_of(task, drawn, settings.outputs)
    assert targets is not None  # of classes, and not of their sum
    model = at.copy().model
    way = Propulsion(settings.degree) if method == "propulsion" else method
    apply_method(model, way, seed=at.seed)
    batch = encode(at.materials.loaded, drawn).batch
    return Start(model, batch, targets, settings.outputs, settings.memory)


def compared(told: np.ndarray, real: np.ndarray) -> list[Row]:
    """Return how predicted outputs (T, N, O) agree with real ones, by time; the first is f_0."""
    found = agreement(told, real, real[0])
    change = told - real[0], real - real[0]
    return [
        {
            "relative_error": _number(found.relative_error[i]),
            "r2": _number(found.r2[i]),
            "cosine": _cosine(change[0][i], change[1][i]),
            "label_agreement": float(found.label_agreement[i]),
        }
        for i in range(len(real))
    ]


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _cosine(a: np.ndarray, b: np.ndarray) -> float | None:
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.vdot(a, b)) / size if size else None
