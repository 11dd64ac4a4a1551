"""Fine-tuning: a plain loop that is seeded, agrees to the bit with itself, and resumes."""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.models.loaded import LoadedModel
from ntk_propulsion.models.roles import is_norm
from ntk_propulsion.models.state import evaluation_mode
from ntk_propulsion.models.tokens import length_batches, pad, tokenize
from ntk_propulsion.tasks import Example, Task
from ntk_propulsion.training import saved
from ntk_propulsion.training.saved import Progress, SavedTraining
from ntk_propulsion.training.schedules import learning_rate_share

OnStep = Callable[[int, float], None]


class TrainingDiverged(InputError):  # noqa: N818 (it names what happened)
    """The loss or a parameter became NaN or infinite; the model keeps its last finite state."""


@dataclass(frozen=True)
class TrainingLog:
    """How a fine-tuning went.

    Attributes:
        losses: Loss of each step's batch before the step, mean over examples.
        steps: How many steps were taken.
        seconds: Time in steps, over all runs where it was resumed.
        trainable_parameters: How many numbers were trained.
        learning_rate: The peak learning rate.
    """

    losses: list[float]
    steps: int
    seconds: float
    trainable_parameters: int
    learning_rate: float


def finetune(
    loaded: LoadedModel,
    task: Task,
    examples: Sequence[Example],
    *,
    steps: int,
    learning_rate: float,
    batch_size: int = 16,
    seed: int = 0,
    weight_decay: float = 0.0,
    warmup: int = 0,
    schedule: str = "linear",
    max_grad_norm: float = 1.0,
    dropout: bool = True,
    output_dir: Path | None = None,
    save_steps: int | None = None,
    on_step: OnStep | None = None,
) -> TrainingLog:
    """Train whatever requires a gradient with AdamW on cross-entropy or squared error, in place.

    Two runs on one machine agree to the bit. With ``output_dir`` the training goes on from the
    last complete checkpoint in it, and ends in the same numbers as an unbroken run. Checkpoints
    hold what is trained, not what is frozen: a resumed run needs the model as it was at first.

    Batches are of texts of like length (`models.tokens.length_batches`). They depend on the
    examples, ``batch_size`` and ``seed`` alone, so that every method trains on the same ones in
    the same order; each step's dropout has a seed of its own.

    Args:
        loaded: The model (in place; its modes come back as they were) and its tokenizer.
        task: Settles the loss.
        examples: What to train on.
        steps: How many optimiser steps.
        learning_rate: The peak of the schedule.
        batch_size: Examples per step.
        seed: Fixes order and dropout.
        weight_decay: AdamW's decay of weights, not of biases and normalisations.
        warmup: Steps of linear warm-up.
        schedule: A name transformers knows: ``"linear"``, ``"constant"``, ``"cosine"``, ...
        max_grad_norm: Longest gradient, clipped; 0 clips nothing.
        dropout: Whether to train in training mode; False trains in evaluation mode.
        output_dir: Where checkpoints go; without it none are kept.
        save_steps: Steps between checkpoints, by default a fifth of all steps.
        on_step: Called after each step with its number (from 1) and loss.

    Raises:
        TrainingDiverged: If the loss, the gradient or a parameter is NaN or infinite.
        InputError: If nothing is trainable, a number makes no sense, or ``output_dir`` holds a
            training with other settings.
    """
    recipe = _Recipe(
        steps,
        learning_rate,
        batch_size,
        seed,
        weight_decay,
        warmup,
        schedule,
        max_grad_norm,
        dropout,
    )
    recipe.check()
    if not examples:
        raise InputError("no examples to train on")
    with evaluation_mode(loaded.model), _deterministic(loaded.model.device):
        training = _Training(loaded, task, examples, recipe)
        try:
            if output_dir is None:
                training.run(on_step)
            else:
                training.run_saved(Path(output_dir), save_steps or math.ceil(steps / 5), on_step)
            training.check_parameters()
        finally:
            loaded.model.zero_grad()
    return training.log()


@dataclass(frozen=True)
class _Recipe:
    """How to train; see `finetune`."""

    steps: int
    learning_rate: float
    batch_size: int
    seed: int
    weight_decay: float
    warmup: int
    schedule: str
    max_grad_norm: float
    dropout: bool

    def check(self) -> None:
        if self.steps < 1:
            raise InputError(f"{self.steps} steps: train for at least 1")
        if not 0 < self.learning_rate < 1e30:
            raise InputError(
                f"a learning rate of {self.learning_rate}: it must be positive and finite"
            )
        if self.batch_size < 1:
            raise InputError(f"a batch size of {self.batch_size}: it must be at least 1")


class _Training:
    """A training under way."""

    def __init__(
        self, loaded: LoadedModel, task: Task, examples: Sequence[Example], recipe: _Recipe
    ) -> None:
        self.model, self.recipe = loaded.model, recipe
        self.trained = {n: p for n, p in loaded.model.named_parameters() if p.requires_grad}
        if not self.trained:
            raise InputError("no parameter of the model requires a gradient: nothing to train")
        self._loaded, self._task, self._examples = loaded, task, examples
        self._rows = tokenize(loaded, examples).rows
        lengths = [len(row["input_ids"]) for row in self._rows]
        self._batches = length_batches(lengths, recipe.batch_size, recipe.steps, seed=recipe.seed)
        self._optimiser, self._rate = _optimiser(loaded.model, self.trained, recipe)
        self._finite = [p.detach().clone() for p in self.trained.values()]
        self.losses: list[float] = []
        self.seconds = 0.0

    @property
    def size(self) -> int:
        """How many numbers train."""
        return sum(p.numel() for p in self.trained.values())

    def run(self, on_step: OnStep | None) -> None:
        """Take the steps that are left."""
        while len(self.losses) < self.recipe.steps:
            self._step()
            if on_step is not None:
                on_step(len(self.losses), self.losses[-1])

    def run_saved(self, folder: Path, save_steps: int, on_step: OnStep | None) -> None:
        """Go on from the folder's last checkpoint, and leave others on the way."""
        settings = {
            **asdict(self.recipe),
            "trainable_parameters": self.size,
            "examples": [[e.index, e.label] for e in self._examples],
        }
        kept = SavedTraining(folder, settings)
        self._resume(kept)

        def each(step: int, loss: float) -> None:
            if on_step is not None:
                on_step(step, loss)
            if step % save_steps == 0 and step < self.recipe.steps:
                kept.save(self._progress(), self.trained, self._optimiser.state_dict())

        before = len(self.losses)
        self.run(each)
        self.check_parameters()
        if len(self.losses) > before:
            kept.save(self._progress(), self.trained, None)

    def check_parameters(self) -> None:
        """Stop if the last step left a parameter that is not finite."""
        if not all(bool(p.isfinite().all()) for p in self.trained.values()):
            self._diverged("a parameter", len(self.losses))

    def log(self) -> TrainingLog:
        """Return how the training went."""
        done = len(self.losses)
        return TrainingLog(self.losses, done, self.seconds, self.size, self.recipe.learning_rate)

    def _progress(self) -> Progress:
        return Progress(tuple(self.losses), self.seconds)

    def _resume(self, kept: SavedTraining) -> None:
        last = kept.last()
        if last is None:
            return
        path, progress = last
        saved.load_trained(path, self.trained)
        if len(progress.losses) < self.recipe.steps:
            saved.load_optimiser(path, self._optimiser)
        self.losses, self.seconds = list(progress.losses), progress.seconds

    def _step(self) -> None:
        """Take a step, note its loss and time."""
        start = time.perf_counter()
        done = len(self.losses)
        _seed_all(self.recipe.seed, done)
        self.model.train(self.recipe.dropout)
        loss = self._loss(self._batches[done])
        value = float(loss.detach())
        if not math.isfinite(value):
            self._diverged("loss", done + 1)
        parameters = list(self.trained.values())
        with torch.no_grad():
            torch._foreach_copy_(self._finite, parameters)
        loss.backward()
        gradients = [p.grad for p in parameters if p.grad is not None]
        length = nn.utils.get_total_norm(gradients)
        if not length.isfinite():
            self._diverged("the gradient", done + 1)
        if self.recipe.max_grad_norm:
            nn.utils.clip_grads_with_norm_(parameters, self.recipe.max_grad_norm, length)
        for group in self._optimiser.param_groups:
            group["lr"] = self._rate(done)
        self._optimiser.step()
        self._optimiser.zero_grad()
        self.losses.append(value)
        self.seconds += time.perf_counter() - start

    def _loss(self, chosen: Sequence[int]) -> Tensor:
        """Return the mean loss over some of the examples."""
        batch = pad(self._loaded, [self._rows[i] for i in chosen])
        labels = torch.tensor([self._examples[i].label for i in chosen], device=self.model.device)
        return self._task.facts.training_loss(self.model(**batch).logits, labels)

    def _diverged(self, what: str, step: int) -> NoReturn:
        with torch.no_grad():
            for parameter, tensor in zip(self.trained.values(), self._finite, strict=True):
                parameter.copy_(tensor)
        raise TrainingDiverged(
            f"{what} is NaN or infinite at step {step} with learning rate "
            f"{self.recipe.learning_rate:g}: lower it, or warm up longer"
        )


def _optimiser(
    model: nn.Module, trained: dict[str, nn.Parameter], recipe: _Recipe
) -> tuple[torch.optim.Optimizer, Callable[[int], float]]:
    """Return AdamW over what trains, and the learning rate by steps taken."""
    decayed = _decayed(model, trained)
    groups = [
        {"params": [p for n, p in trained.items() if n in names], "weight_decay": decay}
        for names, decay in ((decayed, recipe.weight_decay), (trained.keys() - decayed, 0.0))
    ]
    optimiser = torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=recipe.learning_rate, fused=True
    )
    share = learning_rate_share(recipe.schedule, recipe.warmup, recipe.steps)
    return optimiser, lambda done: recipe.learning_rate * share(done)


def _decayed(model: nn.Module, trained: Iterable[str]) -> set[str]:
    """Return the names of what weight decay is of: no biases, nothing of a normalisation."""
    norms = {name for name, module in model.named_modules() if is_norm(module)}
    return {
        name
        for name in trained
        if "bias" not in name and not any(name.startswith(f"{norm}.") for norm in norms)
    }


def _seed_all(seed: int, step: int) -> None:
    """Seed every source of random numbers for one step: a resumed training needs no states."""
    own = np.random.SeedSequence((seed, step)).generate_state(1)[0]
    torch.manual_seed(int(own))
    random.seed(int(own))
    np.random.seed(own)


@contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    """Give back the random states; on CUDA, ask for deterministic algorithms meanwhile."""
    cuda = device.type == "cuda"
    states = random.getstate(), np.random.get_state()
    exact = torch.are_deterministic_algorithms_enabled()
    if cuda:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with torch.random.fork_rng(devices=[device] if cuda else []):
            yield
    finally:
        torch.use_deterministic_algorithms(exact)
        random.setstate(states[0])
        np.random.set_state(states[1])
