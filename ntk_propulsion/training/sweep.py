"""Learning rates chosen fairly: every method tries as many, for as many steps, on the same data."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.tunings import Tuning, resolve_tuning
from ntk_propulsion.models.loaded import LoadedModel
from ntk_propulsion.models.scoring import evaluate
from ntk_propulsion.tasks import Example, Task, draw
from ntk_propulsion.training.finetuning import TrainingDiverged, TrainingLog, finetune
from ntk_propulsion.training.methods import Method, apply_method

STEP = 10**0.5
MOST, FEWEST, SHARE = 100, 8, 0.2


@dataclass(frozen=True)
class Trial:
    """A short training at one learning rate.

    Attributes:
        learning_rate: The peak.
        loss: Mean over the validation examples where it ended; None if it diverged.
        metric: The task's metric on them; None if it diverged.
        stopped_at: The step at which it was given up as lost; None if it was not.
    """

    learning_rate: float
    loss: float | None
    metric: float | None
    stopped_at: int | None = None


@dataclass(frozen=True)
class Sweep:
    """What a method's sweep found.

    Attributes:
        method: Its name.
        trials: In the order of their learning rates.
        steps: Of each that was not stopped.
        examples: Validation examples, none of which was trained on.
    """

    method: str
    trials: tuple[Trial, ...]
    steps: int
    examples: int

    @property
    def chosen(self) -> float:
        """The rate of the least validation loss of those not given up; of equals the smaller one.

        Raises:
            InputError: All diverged.
        """
        finished = [t for t in self.trials if t.loss is not None and t.stopped_at is None]
        if not finished:
            tried = ", ".join(f"{t.learning_rate:g}" for t in self.trials)
            raise InputError(f"{self.method} diverged at every learning rate swept ({tried})")
        return min(finished, key=lambda t: (t.loss, t.learning_rate)).learning_rate

    @property
    def at_edge(self) -> bool:
        """Whether the choice is the least or the largest that was tried: a better one may lie on.

        A sweep of one rate chooses nothing, and has no edge.
        """
        rates = [t.learning_rate for t in self.trials]
        return len(rates) > 1 and self.chosen in (min(rates), max(rates))


def candidate_rates(method: str | Tuning, count: int = 3) -> list[float]:
    """Return learning rates to sweep, half decades apart about what suits the method as a rule.

    Args:
        method: A tuning or its name; of a sum the most delicate part decides.
        count: How many; 1 is the middle itself.

    Raises:
        InputError: None are known for the method, or the count is below 1.
    """
    if count < 1:
        raise InputError(f"a sweep of {count} learning rates: take 1 or more")
    middle = resolve_tuning(method).middle_rate()
    return [float(f"{middle * STEP ** (i - (count - 1) / 2):.2g}") for i in range(count)]


def hold_out(task: Task, *, seed: int = 0, most: int = MOST) -> tuple[Task, list[Example]]:
    """Set aside training examples to choose learning rates by, a fifth of all at most.

    Args:
        task: The task.
        seed: Of the draw.
        most: How many at most.

    Returns:
        The task without them, and them.

    Raises:
        InputError: Fewer than 8 could be set aside.
    """
    count = min(most, int(SHARE * len(task.train)))
    if count < FEWEST:
        raise InputError(
            f"task {task.name!r} has {len(task.train)} training examples, too few to set some "
            f"aside for choosing learning rates ({math.ceil(FEWEST / SHARE)} are needed): give the "
            "learning rates, or sweep 1 only"
        )
    held = draw(task, count, split="train", seed=seed, balanced=False)
    indices = {e.index for e in held}
    return replace(task, train=tuple(e for e in task.train if e.index not in indices)), held


def sweep_learning_rates(
    loaded: LoadedModel,
    task: Task,
    train_examples: Sequence[Example],
    validation: Sequence[Example],
    method: Method,
    rates: Sequence[float],
    *,
    steps: int,
    batch_size: int = 16,
    seed: int = 0,
    on_trial: Callable[[int], None] | None = None,
) -> Sweep:
    """Train a copy of the model at each learning rate and compare the validation losses.

    Every trial has the same examples in the same order and a whole schedule of its own. The rates
    take turns from the middle outwards. Half way a trial is given up if its validation loss is
    above the least that any before it had there: a successive halving that never holds two
    trials at once. Every method has the same budget by this rule: as many rates, as many steps.

    Args:
        loaded: The model at theta_0; it is left as it is.
        task: Settles the loss.
        train_examples: What to train on.
        validation: What to choose by.
        method: What trains, as `trajectories.methods.apply_method` takes it.
        rates: Peak learning rates.
        steps: Of each trial.
        batch_size: Examples a step.
        seed: Of order, dropout and adapters.
        on_trial: Is told how many trials are done.

    Raises:
        InputError: Bad input of the training or the method, or no rates.
    """
    if not rates:
        raise InputError("there are no learning rates to sweep")
    judge = _Judge(task, validation, steps // 2)
    trials, name = [], ""
    for done, rate in enumerate(_outwards(sorted(rates)), start=1):
        tuned = replace(loaded, model=copy.deepcopy(loaded.model))
        name = apply_method(tuned.model, method, steps=steps, seed=seed)
        train = partial(
            finetune,
            tuned,
            task,
            train_examples,
            steps=steps,
            learning_rate=rate,
            batch_size=batch_size,
            seed=seed,
        )
        trials.append(judge.trial(tuned, rate, train))
        if on_trial is not None:
            on_trial(done)
    trials.sort(key=lambda trial: trial.learning_rate)
    return Sweep(name, tuple(trials), steps, len(validation))


def _outwards(rates: Sequence[float]) -> list[float]:
    """Return what is in the middle first, then its neighbours, the smaller one before the other."""
    middle = (len(rates) - 1) / 2
    return [rates[i] for i in sorted(range(len(rates)), key=lambda i: (abs(i - middle), i))]


class _LostError(Exception):
    """A trial fell behind; carries what it had come to."""

    def __init__(self, trial: Trial) -> None:
        super().__init__()
        self.trial = trial


class _Judge:
    """Scores trials, and gives up those that are behind half way."""

    def __init__(self, task: Task, validation: Sequence[Example], half: int) -> None:
        self._task, self._validation, self._half = task, validation, half
        self._least = math.inf

    def trial(self, tuned: LoadedModel, rate: float, train: Callable[..., TrainingLog]) -> Trial:
        """Train, and return what came of it."""

        def each(step: int, _: float) -> None:
            if step != self._half:
                return
            so_far = self._scored(tuned, rate)
            loss = math.inf if so_far.loss is None else so_far.loss
            if loss > self._least:
                raise _LostError(replace(so_far, stopped_at=step))
            self._least = loss

        try:
            train(on_step=each)
        except TrainingDiverged:
            return Trial(rate, None, None)
        except _LostError as lost:
            return lost.trial
        return self._scored(tuned, rate)

    def _scored(self, tuned: LoadedModel, rate: float) -> Trial:
        found = evaluate(tuned, self._task, self._validation)
        loss = _loss(self._task, found.logits, self._validation)
        if not math.isfinite(loss):
            return Trial(rate, None, None)
        return Trial(rate, loss, found.metrics[self._task.metric])


def _loss(task: Task, logits: Tensor, examples: Sequence[Example]) -> float:
    """Return the training's own loss, mean over examples."""
    labels = torch.tensor([e.label for e in examples])
    return float(task.facts.training_loss(logits.double(), labels))
