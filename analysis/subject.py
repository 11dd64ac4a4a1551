"""What the studies work on: a model with its head fitted, a task, and the kernels' examples."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from analysis.options import Settings, Training, Tuned, folder_of
from ntk_propulsion.encoding import encode
from ntk_propulsion.evaluation import evaluate
from ntk_propulsion.heads import fit_probe
from ntk_propulsion.kernels.kernel import Kernels
from ntk_propulsion.kernels.ntk import empirical_ntk
from ntk_propulsion.kernels.tunings import Tuning
from ntk_propulsion.materials import Materials, prepare
from ntk_propulsion.models import Head, LoadedModel
from ntk_propulsion.propulsion import PropulsionConfig, wrap
from ntk_propulsion.results import head_modules
from ntk_propulsion.rows import parts_of
from ntk_propulsion.settings import NONE
from ntk_propulsion.settings import Settings as ExperimentSettings
from ntk_propulsion.tasks import Example, draw
from ntk_propulsion.training import TrainingLog, finetune

Parts = dict[str, np.ndarray]


@dataclass
class Subject:
    """One seed's model, head and examples.

    Attributes:
        settings: Of the study.
        seed: Fixes the draws, the head and the training.
        materials: Model (with its head), task, and the drawn examples.
    """

    settings: Settings
    seed: int
    materials: Materials

    @property
    def model(self) -> nn.Module:
        """The model at theta_0."""
        return self.materials.loaded.model

    @property
    def batch(self) -> dict[str, Tensor]:
        """The N examples of the kernels."""
        return self.materials.encoding.batch

    @property
    def outputs(self) -> int:
        """O, of the logits."""
        return self.materials.task.num_labels

    def kernels(
        self,
        tunings: Iterable[str | Tuning],
        model: nn.Module | None = None,
        batch: dict[str, Tensor] | None = None,
        **more: Any,
    ) -> Kernels:
        """Return kernels at theta_0, or of a changed copy or batch, with their modules' parts."""
        return empirical_ntk(
            self.model if model is None else model,
            self.batch if batch is None else batch,
            tunings,
            self.settings.outputs,
            per_module=True,
            memory=self.settings.memory,
            seed=self.seed,
            **more,
        )

    def parts(self, kernels: Kernels) -> dict[str, Parts]:
        """Split each kernel into all, without_head and head."""
        head = head_modules(self.model)
        return {name: parts_of(kernel, head) for name, kernel in kernels.items()}

    def copy(self) -> LoadedModel:
        """Return a copy of the model, all of it trainable."""
        model = copy.deepcopy(self.materials.loaded.model)
        model.requires_grad_(True)
        return replace(self.materials.loaded, model=model)

    def tune(
        self, config: PropulsionConfig | None, learning_rate: float
    ) -> tuple[LoadedModel, TrainingLog]:
        """Fine-tune a copy: a Propulsion of this configuration, or (None) all parameters."""
        settings = cast(Tuned, self.settings)
        tuned = self.copy()
        if config is not None:
            wrap(tuned.model, config)
        log = finetune(
            tuned,
            self.materials.task,
            self.materials.train,
            steps=settings.steps,
            learning_rate=learning_rate,
            batch_size=settings.batch_size,
            seed=self.seed,
        )
        return tuned, log

    def unseen(self, count: int) -> list[Example]:
        """Draw training examples: where there are enough, none that the probe was fitted on."""
        task = self.materials.task
        n = min(len(self.materials.fitted) + count, len(task.train))
        return draw(task, n, split="train", seed=self.seed)[-count:]

    def metric(self, loaded: LoadedModel | None = None) -> float:
        """Return the task's metric on the test examples; NaN where it is not defined."""
        task = self.materials.task
        loaded = loaded or self.materials.loaded
        return evaluate(loaded, task, self.materials.test).metrics[task.metric]


def subject(
    settings: Settings,
    seed: int,
    task: str = "",
    *,
    train: bool = True,
    max_length: int | None = None,
) -> Subject:
    """Load a model and a task, draw the examples, and fit the head.

    Args:
        settings: Of the study.
        seed: Of everything.
        task: Its name; by default that of the study's settings.
        train: Whether training examples are needed.
        max_length: Longer texts are cut to so many tokens, in everything that follows.

    Raises:
        InputError: Model or task cannot be loaded, or has too few examples.
    """
    known = settings if isinstance(settings, Tuned) else Tuned()
    name = task or cast(Training, settings).task_name
    chosen = ExperimentSettings(
        model=settings.model,
        task=name,
        data=folder_of(name, settings.data),
        examples=settings.examples,
        degree=settings.degree,
        head=cast(Head, known.head),
        steps=known.steps if train else 0,
        batch_size=known.batch_size,
        probe_examples=known.probe_examples,
        test_examples=known.test_examples,
        outputs=settings.outputs,
        seed=seed,
        device=settings.device,
        memory=settings.memory,
        tunings=("full",),  # each study brings its own, and its learning rates
        sweep=1,
        trajectories=NONE,
    )
    materials = prepare(chosen)
    if max_length is not None:
        materials.loaded.tokenizer.model_max_length = max_length
        materials.encoding = encode(materials.loaded, materials.drawn)
    if materials.fitted:
        with torch.random.fork_rng(devices=[]):
            fit_probe(materials.loaded, materials.task, materials.fitted, seed=seed)
    return Subject(settings, seed, materials)
