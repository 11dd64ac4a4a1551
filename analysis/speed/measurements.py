"""Does the kernel's spectrum tell how many steps a training takes? Claim E2b.

Full-batch gradient descent on squared loss, each method at half the stable rate of its own kernel
("matched"), and all of them at the smallest of these rates ("fixed"). Steps are counted in
fractions, along a straight line of the log loss between two whole steps, in the prediction as in
the training: otherwise rounding 1.9 and 2.1 steps up would make one half more of them. Where the
kernel predicts more steps than the cap for every level, at the fixed rate, nothing is trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from analysis.fixtures.descents import SHARE, Start, start_of
from analysis.fixtures.subject import Subject, subject
from analysis.framework.options import MAX_LENGTH, Training
from analysis.framework.study import Work, seeds
from analysis.framework.tables import Row
from ntk_propulsion.errors import InputError
from ntk_propulsion.runs.options import option
from ntk_propulsion.theory.convergence import LossCurve
from ntk_propulsion.training.descent import descend
from ntk_propulsion.training.finetuning import TrainingDiverged
from ntk_propulsion.training.methods import twin

ROUNDING = 1e-6  # of float32 kernels, relative to the largest eigenvalue
PIECE = 10  # steps between looks at whether the last level is reached
LINEAR = "head"  # the method whose model is linear in what trains
MATCHED, FIXED = "matched", "fixed"
STEPS, LOSS, MODE = "steps", "loss", "mode"
REACHED, CAPPED, DIVERGED = "reached", "not reached within the cap", "diverged"
UNTRAINED = "predicted beyond the cap, not trained"


@dataclass(frozen=True)
class Settings(Training):
    """Settings of the study."""

    examples: int = option(16, "N, training examples of the descents and their kernels.")
    outputs: str = option("margin", "Trained to -1 and +1 (margin), or to one-hot classes: logits.")
    steps: int = option(60, "The cap: no descent takes more steps.")
    max_length: int = option(32, MAX_LENGTH)
    methods: tuple[str, ...] = option(
        ("full", "propulsion", "lora", "adalora", "bitfit", "ia3", LINEAR), "What is trained."
    )
    levels: tuple[float, ...] = option(
        (0.75, 0.5, 0.25, 0.1), "Losses to reach, as shares of the way from first loss to floor."
    )


def measure(settings: Settings, work: Work) -> list[Row]:
    """Train every method at every seed, at its own rate and at the slowest one's.

    Returns:
        Rows of a ``kind``: ``mode`` (an eigenvalue of K / N), ``loss`` (of a step, measured and
        predicted) and ``steps`` (to a level, predicted and measured).
    """
    if not settings.levels or not all(0 < level < 1 for level in settings.levels):
        raise InputError(f"--levels {settings.levels}: give shares between 0 and 1")
    rows: list[Row] = []
    for seed in seeds(settings):
        of = _Seed(settings, seed)
        own: list[Row] = []
        for method in settings.methods:
            own += work.cell(f"{seed}-{method}", partial(of.matched, method))
        rates = {row["method"]: row["learning_rate"] for row in own if row["kind"] == STEPS}
        slowest = min(rates.values())
        for method, rate in rates.items():
            if rate > slowest:  # else the matched training is this one
                cell = partial(of.fixed, method, slowest)
                own += work.cell(f"{seed}-{method}-fixed", cell)
        rows += [{"seed": seed, **row} for row in own]
    return rows


class _Seed:
    """One seed's model and texts, loaded when a cell first needs them."""

    def __init__(self, settings: Settings, seed: int) -> None:
        self.settings, self.seed = settings, seed

    @cached_property
    def at(self) -> Subject:
        length = self.settings.max_length
        return subject(self.settings, self.seed, train=False, max_length=length)

    def start(self, method: str) -> tuple[Start, LossCurve]:
        """Return the model that a method trains, with its predicted losses."""
        start = start_of(self.at, method, self.settings.examples)
        return start, LossCurve.of(start.kernel(), start.f0(), start.targets, rtol=ROUNDING)

    def matched(self, method: str) -> list[Row]:
        """Return the spectrum and the steps at half the method's own stable rate."""
        start, curve = self.start(method)
        modes: list[Row] = [
            {"kind": MODE, "method": method, "mode": i + 1, "value": float(rate) / 2}
            for i, rate in enumerate(curve.rates)
        ]
        about = {"method": method, "rates": MATCHED}
        rows = self._rows(start, curve, SHARE * curve.stable_rate)
        return modes + [{**about, **row} for row in rows]

    def fixed(self, method: str, rate: float) -> list[Row]:
        """Return the steps at a rate, trained only where a level is predicted within the cap."""
        start, curve = self.start(method)
        easiest = curve.steps_to(_loss_at(curve, max(self.settings.levels)), rate)
        about = {"method": method, "rates": FIXED}
        rows = self._rows(start, curve, rate, trained=easiest <= self.settings.steps)
        return [{**about, **row} for row in rows]

    def _rows(
        self, start: Start, curve: LossCurve, rate: float, trained: bool = True
    ) -> Iterator[Row]:
        losses, outcome = np.array([curve.initial]), UNTRAINED
        if trained:
            until = _loss_at(curve, min(self.settings.levels))
            losses, outcome = descended(start, rate, until, self.settings.steps)
            told = curve.after(rate, np.arange(len(losses)))
            for step, (measured, predicted) in enumerate(zip(losses, told, strict=True)):
                values = {"measured": float(measured), "predicted": float(predicted)}
                yield {"kind": LOSS, "step": step, **values}
        for level in self.settings.levels:
            loss = _loss_at(curve, level)
            measured = crossing(losses, loss)
            yield {
                "kind": STEPS,
                "learning_rate": rate,
                "level": level,
                "predicted": predicted_steps(curve, loss, rate),
                "measured": measured,
                "outcome": outcome if measured is None else REACHED,
            }


def _loss_at(curve: LossCurve, level: float) -> float:
    return curve.floor + level * (curve.initial - curve.floor)


def descended(start: Start, rate: float, until: float, cap: int) -> tuple[np.ndarray, str]:
    """Return the losses after each step until one is low enough, and how that ended.

    Descent has no memory, so that pieces of it, one after the other, are the whole.
    """
    model = twin(start.model)
    losses = np.empty(0)
    taken = 0
    while taken < cap and not (losses <= until).any():
        steps = min(PIECE, cap - taken)
        try:
            more = descend(
                model, start.batch, start.targets, rate, steps, outputs=start.outputs
            ).losses
        except TrainingDiverged:
            return losses, DIVERGED
        losses = np.append(losses[:-1], more)
        taken += steps
    return losses, CAPPED


def crossing(losses: np.ndarray, level: float) -> float | None:
    """Return after how many steps losses (T,) first fall to a level, None if they do not.

    In fractions, along a straight line of the log loss between whole steps.
    """
    below = np.flatnonzero(losses <= level)
    if not len(below):
        return None
    step = int(below[0])
    if step == 0:
        return 0.0
    before, after = np.log(np.maximum(losses[[step - 1, step]], 1e-300) / level)
    return float(step - 1 + before / (before - after))


def predicted_steps(curve: LossCurve, level: float, rate: float) -> float:
    """Return `crossing` of the predicted losses."""
    whole = curve.steps_to(level, rate)
    before = max(whole - 1, 0.0)
    rest = crossing(curve.after(rate, np.array([before, whole])), level)
    return before + (1.0 if rest is None else rest)  # None: to rounding it is the level
