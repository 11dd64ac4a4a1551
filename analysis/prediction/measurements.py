"""Does the kernel at theta_0 predict a training that was really done? Claims P1 and P2.

Networks that get wider, where the prediction is exact in the limit, and a pretrained transformer
trained by several methods. Beside gradient descent stand the limit of its training, kernel ridge
regression, and sign descent and Adam with the kernels of signs. Full-batch descent from the same
outputs, at half the stable rate of the kernel of what trains, so that steps compare one to one.
The transformer's outputs are the margin: one, for which sign descent is defined.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analysis.fixtures.descents import SHARE, Start, compared, start_of
from analysis.fixtures.labels import classes
from analysis.fixtures.networks import mlp
from analysis.fixtures.subject import Subject, subject
from analysis.framework.options import MAX_LENGTH, Training
from analysis.framework.rules import (
    Estimate,
    log_slope,
)
from analysis.framework.study import Work, seeds
from analysis.framework.tables import Row
from analysis.prediction.signs import ONE_BY_ONE, predicted_and_done
from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels import Kernel
from ntk_propulsion.kernels.batch import Batch
from ntk_propulsion.models.tokens import encode
from ntk_propulsion.runs.options import option
from ntk_propulsion.theory.convergence import stable_rate
from ntk_propulsion.theory.dynamics import gradient_descent
from ntk_propulsion.theory.kernel_regression import choose_ridge, ridge_predictions
from ntk_propulsion.training.finetuning import TrainingDiverged

LOSSES = ("squared", "cross-entropy")
SIGNED = ("full", "propulsion")  # methods that sign descent and Adam train too
TRAIN, TEST = "train", "test"
NETWORK, LINEAR, OUTPUTS = "network", "linear", "outputs"
REGRESSION, SIGN = "regression", "sign"


@dataclass(frozen=True)
class Settings(Training):
    """Settings of the study."""

    examples: int = option(16, "N, training examples of descents and kernels.")
    outputs: str = option("margin", "The transformer's: margin.")
    test_examples: int = option(64, "Test examples whose outputs are predicted.")
    steps: int = option(30, "Steps of each descent of the transformer.")
    max_length: int = option(32, MAX_LENGTH)
    methods: tuple[str, ...] = option(("full", "propulsion", "lora"), "What trains.")
    sign_steps: int = option(10, "Steps of sign descent and Adam on all examples at once.")
    widths: tuple[int, ...] = option(
        (64, 128, 256, 512, 1024, 2048, 4096), "Of the random network's hidden layers."
    )
    network_seeds: int = option(5, "Random networks, each with other inputs.")
    network_steps: int = option(30, "Steps of each descent of a random network.")

    @property
    def recorded(self) -> list[int]:
        """The steps after which the transformer's outputs are compared."""
        marks = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500)
        return [*(step for step in marks if step < self.steps), self.steps]


def measure(settings: Settings, work: Work) -> list[Row]:
    """Train and predict networks of every width, then the transformer by every method.

    Returns:
        Rows of a ``kind``: ``network`` (a width, seed and loss), ``linear`` (the same of a last
        layer alone), ``outputs`` (of the transformer after a step), ``regression`` (against its
        last outputs) and ``sign`` (of sign descent and Adam).
    """
    _check(settings)
    rows: list[Row] = []
    for width in sorted(set(settings.widths)):
        for seed in range(settings.network_seeds):
            rows += work.cell(f"width-{width}-{seed}", partial(network, settings, width, seed))
    for seed in seeds(settings):
        of = _Seed(settings, seed)
        for method in settings.methods:
            rows += work.cell(f"{seed}-{method}", partial(of.rows, method))
    return rows


def _check(settings: Settings) -> None:
    if len(set(settings.widths)) < 2 or settings.network_seeds < 1:
        raise InputError(
            f"--widths {settings.widths} with {settings.network_seeds} --network-seeds: a slope "
            "needs two widths and a seed"
        )
    if settings.outputs != "margin":
        raise InputError(
            f"--outputs {settings.outputs}: sign descent is defined for one output, the margin"
        )
    if min(settings.steps, settings.sign_steps, settings.network_steps) < 1:
        raise InputError("--steps, --sign-steps and --network-steps: train for at least 1")


def network(settings: Settings, width: int, seed: int) -> list[Row]:
    """Return how a random network's training is predicted: the whole, and its last layer alone.

    The classes are those of sin(2 x_0) + x_1, of which every width sees the same examples.
    """
    n = settings.examples
    made = mlp(width, seed, 2 * n)
    x: Tensor = made.batch
    targets = np.eye(2)[((torch.sin(2 * x[:, 0]) + x[:, 1]) > 0).long().numpy()]
    start, others = Start(made.model, x[:n], targets[:n]), x[n:]
    about = {"width": width, "seed": seed}
    steps = [0, settings.network_steps]
    rows = [{"kind": NETWORK, **about, **row} for row in _last(start, others, steps)]
    if width == min(settings.widths):
        made.model.requires_grad_(False)
        made.model[-1].requires_grad_(True)  # type: ignore[index]
        rows += [{"kind": LINEAR, **about, **row} for row in _last(start, others, steps)]
        rows += [{"kind": LINEAR, **about, **row} for row in _signed(start, others)]
    return rows


def _last(start: Start, others: Batch, steps: Sequence[int]) -> Iterator[Row]:
    """Yield how the outputs of test examples after the last step are predicted, by loss."""
    K, cross = start.kernel(), start.kernel(others)
    for loss in LOSSES:
        real, told = _both(start, others, K, cross, loss, steps)
        yield {"loss": loss, **compared(told[TEST], real[TEST])[-1]}


def _signed(start: Start, others: Batch) -> Iterator[Row]:
    """Yield how sign descent of the margin, one example a step, is predicted."""
    margin = start.targets[:, 1:] - start.targets[:, :1]
    of = Start(start.model, start.batch, margin, "margin")
    gradients = of.kernel(), of.kernel(others)
    for row in predicted_and_done(of, others, gradients, 1, 0, [ONE_BY_ONE]):
        if row["kernel"] == "asymmetric":
            yield {"loss": LOSSES[0], **row}


Trained = dict[str, np.ndarray]  # outputs (T, N, O) of train and of test examples


def _both(
    start: Start, others: Batch, K: Kernel, cross: Kernel, loss: str, steps: Sequence[int]
) -> tuple[Trained, Trained]:
    """Return the outputs of training and test examples after steps, real and predicted."""
    rate = SHARE * stable_rate(K, loss=loss)
    done = start.descend(rate, steps[-1], loss=loss, other=others, record=steps)
    assert done.elsewhere is not None  # test examples were given
    told = gradient_descent(K, done.outputs[0], start.targets, rate, steps, loss=loss)
    elsewhere = told.elsewhere(cross, done.elsewhere[0])
    real = {TRAIN: done.outputs, TEST: done.elsewhere}
    return real, {TRAIN: told.outputs, TEST: elsewhere}


class _Seed:
    """One seed's model and texts, loaded when a cell first needs them."""

    def __init__(self, settings: Settings, seed: int) -> None:
        self.settings, self.seed = settings, seed

    @cached_property
    def at(self) -> Subject:
        length = self.settings.max_length
        return subject(self.settings, self.seed, train=False, max_length=length)

    @cached_property
    def others(self) -> Batch:
        return encode(self.at.materials.loaded, self.at.materials.test).batch

    def rows(self, method: str) -> list[Row]:
        """Measure one method."""
        start = start_of(self.at, method, self.settings.examples)
        K, cross = start.kernel(), start.kernel(self.others)
        rows: list[Row] = []
        for loss in LOSSES:
            try:
                real, told = _both(start, self.others, K, cross, loss, self.settings.recorded)
            except TrainingDiverged as diverged:
                rows.append({"kind": OUTPUTS, "loss": loss, "note": str(diverged)})
                continue
            rows += self._outputs(start, loss, real, told)
            if loss == LOSSES[0]:
                rows += self._regressions(start, K, cross, real)
        if method in SIGNED:
            steps = self.settings.sign_steps
            found = predicted_and_done(start, self.others, (K, cross), steps, self.seed)
            rows += [{"kind": SIGN, "loss": LOSSES[0], **row} for row in found]
        return [{"seed": self.seed, "method": method, **row} for row in rows]

    def _truth(self, start: Start, examples: str) -> np.ndarray:
        if examples == TRAIN:
            return classes(start.targets)
        return np.array([int(example.label) for example in self.at.materials.test])

    def _outputs(self, start: Start, loss: str, real: Trained, told: Trained) -> Iterator[Row]:
        for examples in (TRAIN, TEST):
            truth = self._truth(start, examples)
            agreed = compared(told[examples], real[examples])
            for i, step in enumerate(self.settings.recorded):
                yield {
                    "kind": OUTPUTS,
                    "loss": loss,
                    "examples": examples,
                    "step": step,
                    **agreed[i],
                    "accuracy_predicted": _accuracy(told[examples][i], truth),
                    "accuracy": _accuracy(real[examples][i], truth),
                }

    def _regressions(self, start: Start, K: Kernel, cross: Kernel, real: Trained) -> Iterator[Row]:
        """Yield what ridge regression, training's limit, says of the test examples."""
        truth = self._truth(start, TEST)
        last = real[TEST][-1]
        offsets: dict[str, tuple[Any, Any]] = {
            "0": (None, None),
            "f0": (real[TRAIN][0], real[TEST][0]),
        }
        for name, (here, there) in offsets.items():
            ridge = choose_ridge(K, start.targets, offset=here).ridge
            found = ridge_predictions(
                K, cross, start.targets, ridge=ridge, offset=here, cross_offset=there
            )
            yield {
                "kind": REGRESSION,
                "loss": LOSSES[0],
                "examples": TEST,
                "offset": name,
                "ridge": ridge,
                "label_agreement": float(np.mean(classes(found) == classes(last))),
                "accuracy_predicted": _accuracy(found, truth),
                "accuracy": _accuracy(last, truth),
            }


def _accuracy(outputs: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean(classes(outputs) == truth))


def slopes(rows: Sequence[Row]) -> dict[str, Estimate]:
    """Return the slope of log relative error on log width by loss, its t-interval over seeds."""
    curves: dict[str, dict[int, dict[int, float]]] = {}
    for row in (row for row in rows if row["kind"] == NETWORK):
        by_seed = curves.setdefault(row["loss"], {})
        by_seed.setdefault(row["seed"], {})[row["width"]] = row["relative_error"]
    return {loss: log_slope(by_seed) for loss, by_seed in curves.items()}
