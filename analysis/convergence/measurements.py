"""How soon does each method reach a metric, by the number of training examples? Claim E2.

What the paper's Fig. 3 leaves open is chosen so. The head is new and random, as in the paper's
notebooks; unlike in those its weights train along, in every method, as is usual with adapters. A
probe would start near the metric that is to be reached. The learning rate is constant after a short
warm-up: under a decay, how soon a level is reached would depend on how many steps follow it. It is
chosen on training examples held out, at the first seed and one size, among as many for each method,
about what suits the method without the head; its trials are short and decay, which favours rates
that a longer constant training may not bear. Training examples are drawn by classes in turn, as the
test examples are, so that a size changes their number alone. A training that takes fewer examples
than there are sees none twice: a larger set would change nothing for it but which they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from analysis.convergence.runs import EVALUATION, TRIAL, runs
from analysis.fixtures.subject import Subject, subject
from analysis.framework.options import MAX_LENGTH, PACKAGED, Tuned
from analysis.framework.options import Settings as Shared
from analysis.framework.study import Work, seeds
from analysis.framework.tables import Row, where
from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.tunings import Tuning, resolve_tuning
from ntk_propulsion.models.loaded import LoadedModel
from ntk_propulsion.models.probe import fit_probe
from ntk_propulsion.runs.options import option
from ntk_propulsion.tasks import Example, Task, draw
from ntk_propulsion.training.finetuning import TrainingDiverged, finetune
from ntk_propulsion.training.methods import apply_method
from ntk_propulsion.training.sweep import Sweep, candidate_rates, hold_out, sweep_learning_rates

GLUE = ("sst2", "cola")  # the paper's, and another with 4096 training examples
METHODS = ("full", "propulsion", "lora", "adalora")
WARMUP = 4


@dataclass(frozen=True)
class Settings(Shared):
    """Settings of the study."""

    tasks: tuple[str, ...] = option(
        (), "Tasks.  [default: sst2 and cola with --data, else rotten-tomatoes]"
    )
    head: str = option("random", "random, or probe: fitted to the training examples alone.")
    sizes: tuple[int, ...] = option((16, 256, 4096), "Numbers of training examples.")
    steps: int = option(48, "Steps of each training.")
    at: tuple[int, ...] = option((4, 8, 12, 16, 24, 32), "Steps evaluated at, beside 0, the last.")
    batch_size: int = option(16)
    max_length: int = option(32, MAX_LENGTH)
    test_examples: int = option(150)
    sweep: int = option(4, "Learning rates that each method tries.")
    sweep_steps: int = option(20, "Steps of each trial (AdamW, linear decay).")
    sweep_size: int = option(256, "Training examples of each trial.")

    @property
    def task_names(self) -> tuple[str, ...]:
        """The tasks, as they were asked for or by what data there is."""
        return self.tasks or (GLUE if self.data else PACKAGED[:1])

    @property
    def evaluated(self) -> tuple[int, ...]:
        """The steps at which every training is evaluated, in order."""
        return tuple(sorted({0, *self.at, self.steps}))

    @property
    def warmup(self) -> int:
        """Steps of warm-up, fewer than there are."""
        return min(WARMUP, self.steps - 1)

    @property
    def never(self) -> int:
        """What a run that never reaches its level counts: an evaluation more than it had."""
        before, last = self.evaluated[-2:]
        return last + (last - before)

    def alone(self, method: str) -> Tuning:
        """Return what a method trains but the head; it settles which learning rates are tried."""
        return resolve_tuning(method, self.degree)

    def tuning(self, method: str) -> Tuning:
        """Return what a method trains: the head too."""
        return resolve_tuning(method if method == "full" else f"{method}+head", self.degree)

    def check(self) -> None:
        """Refuse values that make no sense.

        Raises:
            InputError: One does.
        """
        if self.head not in ("random", "probe"):
            raise InputError(f"--head {self.head}: give random or probe")
        if self.steps < 1 or not {*self.at} <= {*range(self.steps + 1)}:
            raise InputError(f"--at {self.at}: give steps from 0 to --steps {self.steps}")


def measure(settings: Settings, work: Work) -> list[Row]:
    """Choose learning rates, then train every method at every size and seed.

    Returns:
        Rows of a ``kind``: ``trial`` (a learning rate that was swept), ``evaluation`` (a training
        at one step: metric, and mean training loss since the evaluation before) and ``run`` (a
        training's steps to its level, its last and its best metric).
    """
    settings.check()
    for task in settings.task_names:  # too few examples are refused now, not after an hour
        _Place(settings, 0, task).train(max(*settings.sizes, settings.sweep_size))
    trials: list[Row] = []
    rows: list[Row] = []
    for task in settings.task_names:
        for seed in seeds(settings):
            place = _Place(settings, seed, task)
            if not seed:
                for method in METHODS:
                    cell = partial(place.trials, method)
                    trials += work.cell(f"{task}-sweep-{method}", cell)
            for size in settings.sizes:
                for method in METHODS:
                    cell = partial(place.rows, method, size, chosen(trials, task, method))
                    rows += work.cell(f"{task}-{size}-{seed}-{method}", cell)
    return [*trials, *rows, *runs(rows, settings.never)]


def chosen(trials: Sequence[Row], task: str, method: str) -> float:
    """Return the learning rate that a method's sweep chose."""
    (row,) = where(trials, task=task, method=method, chosen=True)
    return float(row["learning_rate"])


class _Place:
    """One task and seed, loaded when a cell first needs it."""

    def __init__(self, settings: Settings, seed: int, task: str) -> None:
        self.settings, self.seed, self.name = settings, seed, task

    @cached_property
    def at(self) -> Subject:
        known = Tuned(
            model=self.settings.model,
            data=self.settings.data,
            device=self.settings.device,
            examples=2,  # no kernels here
            head="random",
            test_examples=self.settings.test_examples,
        )
        length = self.settings.max_length
        return subject(known, self.seed, self.name, train=False, max_length=length)

    @cached_property
    def held(self) -> tuple[Task, list[Example]]:
        """The task without what learning rates are chosen by, and that."""
        return hold_out(self.at.materials.task)

    def train(self, size: int) -> list[Example]:
        return draw(self.held[0], size, split="train", seed=self.seed)

    def start(self, size: int) -> LoadedModel:
        """Return a model to train on so many examples."""
        loaded = self.at.copy()
        if self.settings.head == "probe":
            fit_probe(loaded, self.held[0], self.train(size), seed=self.seed)
        return loaded

    def trials(self, method: str) -> list[Row]:
        """Sweep a method's learning rates; return a row for each."""
        tuning, size = self.settings.tuning(method), self.settings.sweep_size
        found = sweep_learning_rates(
            self.start(size),
            *(self.held[0], self.train(size), self.held[1], tuning),
            candidate_rates(self.settings.alone(method), self.settings.sweep),
            steps=self.settings.sweep_steps,
            batch_size=self.settings.batch_size,
            seed=self.seed,
        )
        return [_trial_row(self.name, method, size, found, i) for i in range(len(found.trials))]

    def rows(self, method: str, size: int, rate: float) -> list[Row]:
        """Train a method; return a row for each evaluation."""
        about = {"kind": EVALUATION, "task": self.name, "size": size, "seed": self.seed}
        name = self.at.materials.task.metric
        shared = {**about, "method": method, "learning_rate": rate, "metric_name": name}
        return [{**shared, **row} for row in self.trained(method, size, rate)[1]]

    def trained(self, method: str, size: int, rate: float) -> tuple[LoadedModel, list[Row]]:
        """Train a method and evaluate it on the way, which changes nothing of the training.

        Returns:
            The trained model, and for each evaluation its step, metric (None where it is not
            defined, and after the training diverged) and mean training loss since the one before.
        """
        settings, loaded = self.settings, self.start(size)
        tuning = settings.tuning(method)
        apply_method(loaded.model, tuning, steps=settings.steps, seed=self.seed)
        losses: list[float] = []
        found = {0: self.at.metric(loaded)}

        def each(step: int, loss: float) -> None:
            losses.append(loss)
            if step in settings.evaluated:
                found[step] = self.at.metric(loaded)

        # What a training that diverges never came to is missing, and counts as never reached.
        with suppress(TrainingDiverged):
            finetune(
                loaded,
                self.held[0],
                self.train(size),
                steps=settings.steps,
                learning_rate=rate,
                batch_size=settings.batch_size,
                seed=self.seed,
                warmup=settings.warmup,
                schedule="constant_with_warmup",
                on_step=each,
            )
        return loaded, list(_evaluations(settings.evaluated, found, losses))


def _trial_row(task: str, method: str, size: int, found: Sweep, i: int) -> Row:
    trial = found.trials[i]
    return {
        "kind": TRIAL,
        "task": task,
        "size": size,
        "seed": 0,
        "method": method,
        "learning_rate": trial.learning_rate,
        "validation_loss": trial.loss,
        "metric": trial.metric,
        "chosen": trial.learning_rate == found.chosen,
        "at_edge": found.at_edge,
    }


def _evaluations(
    steps: Sequence[int], found: Mapping[int, float], losses: Sequence[float]
) -> Iterator[Row]:
    before = 0
    for step in steps:
        value = found.get(step, math.nan)
        since = losses[before:step] if step in found else []
        yield {
            "step": step,
            "metric": value if math.isfinite(value) else None,
            "train_loss": float(np.mean(since)) if since else None,
        }
        before = step
