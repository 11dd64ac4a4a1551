"""What the degree k of z**k does: to the kernel, to the path of a training, to accuracy (A1).

At z = 1 a degree is a step size: K_P(k) = k**2 K_P(1) exactly, and to first order full-batch SGD
with (k, lr) goes where (1, k**2 lr) goes, Adam with (k, lr) where (1, k lr) goes. What is left is
curvature. In terms of the gain g = z**k, gradient flow is dg/dt = -k**2 g**(2 - 2/k) dL/dg: once
gains have left 1, degrees differ.

The trainings that accuracy is measured after are stochastic (AdamW, dropout, linear decay,
gradients clipped at 1). Each degree trains with one learning rate for all, and with the rate
matched: lr * K / k, so that the default degree K keeps its own. How fast it learns is counted
against an untrained model's loss on the very same batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn

from analysis.fixtures import grid
from analysis.fixtures.subject import Subject, subject
from analysis.framework.options import Training
from analysis.framework.study import Work, seeds
from analysis.framework.tables import Row
from ntk_propulsion.kernels import Kernel
from ntk_propulsion.models.loaded import LoadedModel
from ntk_propulsion.propulsion import PropulsionConfig, scalings, wrap
from ntk_propulsion.runs.options import option
from ntk_propulsion.theory.convergence import stable_rate
from ntk_propulsion.theory.distances import compare_kernels
from ntk_propulsion.training.descent import Descent, descend
from ntk_propulsion.training.finetuning import TrainingDiverged, TrainingLog

FIXED, MATCHED = "fixed", "matched"
POWERS = {"sgd": 2, "adam": 1}  # (k, lr) follows (1, k**power lr)
APART = 0.1  # of the outputs' change: from there on two paths count as apart
SHARE, WINDOW = 0.9, 5  # of the untrained model's loss, both over so many steps
STILL = 1e-30  # a learning rate at which no float32 parameter moves


@dataclass(frozen=True)
class Settings(Training):
    """Settings of the study."""

    examples: int = option(8, "N, examples of the kernels and of the full-batch paths.")
    test_examples: int = option(400)
    degrees: tuple[int, ...] = option((1, 5, 15, 25, 55), "Degrees whose accuracy is compared.")
    path_degrees: tuple[int, ...] = option((5, 15, 55), "Degrees whose paths meet degree 1's.")
    path_steps: int = option(25, "Steps of each path.")
    sgd_shares: tuple[float, ...] = option(
        (0.05, 0.5), "SGD's learning rates on the paths, as shares of the largest stable one."
    )
    adam_rates: tuple[float, ...] = option(
        (3e-4, 3e-3), "Adam's learning rates on the paths, as they are at --degree."
    )


def measure(settings: Settings, work: Work) -> list[Row]:
    """Measure kernels and paths on the first seed's examples, and trainings on every seed's.

    Returns:
        Rows of a ``kind``: ``kernel`` (a degree), ``path`` (a degree's distance to degree 1 after
        a step), ``paths`` (what a path came to), ``loss`` (of a step of a training) and
        ``training`` (what a training came to).
    """
    rows: list[Row] = []
    for seed in seeds(settings):
        at = subject(settings, seed)
        if seed == 0:
            rows += work.cell("kernels", partial(_kernels, at, settings))
            largest = next(row["stable_rate"] for row in rows if row["degree"] == 1)
            for optimiser, label, rate in _path_rates(settings, largest):
                cell = partial(_paths, at, settings, optimiser, label, rate)
                rows += work.cell(f"path-{optimiser}-{label:g}", cell)
        rows += _trainings(at, settings, work)
    return rows


def _wrapped(at: Subject, degree: int) -> nn.Module:
    return wrap(at.copy().model, PropulsionConfig(degree))


def _loss(at: Subject) -> str:
    return at.materials.task.facts.loss


def _kernels(at: Subject, settings: Settings) -> list[Row]:
    """Compare each degree's kernel with the one of degree 1."""
    rows: list[Row] = []
    first: Kernel | None = None
    for degree in sorted({1, *settings.degrees, *settings.path_degrees}):
        kernel = at.kernels(["propulsion"], _wrapped(at, degree))["propulsion"]
        first = first or kernel
        error = compare_kernels(kernel.matrix / degree**2, first.matrix, at.outputs)
        row = {
            "kind": "kernel",
            "seed": at.seed,
            "degree": degree,
            "relative_error": error["relative_frobenius"],
            "stable_rate": stable_rate(kernel, loss=_loss(at)),
        }
        rows.append(row)
    return rows


def _path_rates(settings: Settings, largest: float) -> Iterator[tuple[str, float, float]]:
    """Yield each optimiser, its rate as the settings have it, and its rate at degree 1."""
    for share in settings.sgd_shares:
        yield "sgd", share, share * largest
    for rate in settings.adam_rates:
        yield "adam", rate, rate * settings.degree


def _paths(at: Subject, settings: Settings, optimiser: str, label: float, rate: float) -> list[Row]:
    """Compare the paths of degrees with degree 1's, each at the rate that makes up for it."""
    rows: list[Row] = []
    shared = {"seed": at.seed, "optimiser": optimiser, "rate": label}
    first: Descent | None = None
    for degree in (1, *(k for k in settings.path_degrees if k > 1)):
        learning_rate = rate / degree ** POWERS[optimiser]
        row = {**shared, "degree": degree, "learning_rate": learning_rate}
        model = _wrapped(at, degree)
        try:
            found = _descended(at, settings, model, optimiser, learning_rate)
        except TrainingDiverged as diverged:
            rows.append({"kind": "paths", **row, "note": str(diverged)})
            if first is None:
                return rows  # nothing to compare with
            continue
        first = first or found
        apart = distance_apart(found.outputs, first.outputs)
        rows += [
            {"kind": "path", **row, "step": step, "apart": float(value)}
            for step, value in enumerate(apart, start=1)
        ]
        rows.append(
            {
                "kind": "paths",
                **row,
                "first_step_apart": first_step(apart > APART),
                "first_loss": float(found.losses[0]),
                "loss": float(found.losses[-1]),
                **_gains(model),
            }
        )
    return rows


def _gains(model: nn.Module) -> Row:
    gains = torch.cat([s.gain().detach().ravel() for s in scalings(model).values()])
    return {"gain_min": float(gains.min()), "gain_max": float(gains.max())}


def _descended(
    at: Subject, settings: Settings, model: nn.Module, optimiser: str, learning_rate: float
) -> Descent:
    return descend(
        model,
        at.batch,
        np.array([example.label for example in at.materials.drawn]),
        learning_rate,
        settings.path_steps,
        loss=_loss(at),
        optimiser=optimiser,
        outputs=settings.outputs,
    )


def distance_apart(outputs: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return |f(t) - f_1(t)| / |f_1(t) - f_1(0)| after each step, (T,).

    Args:
        outputs: Of one path, (T + 1, N, O).
        reference: Of the other, f_1.
    """
    moved = np.linalg.norm((reference - reference[0])[1:], axis=(1, 2))
    return np.linalg.norm((outputs - reference)[1:], axis=(1, 2)) / moved


def first_step(reached: np.ndarray) -> int | None:
    """Return the first step, counted from 1, at which something is so; None where it never is."""
    return int(reached.argmax()) + 1 if reached.any() else None


def _trainings(at: Subject, settings: Settings, work: Work) -> list[Row]:
    """Train each degree at the fixed and at the matched rate; at the default they are one."""
    untrained = work.cell(f"{at.seed}-untrained", partial(_untrained, at, settings))
    still = [row["loss"] for row in untrained]
    before = work.cell(f"{at.seed}-before", lambda: [{"metric_before": at.metric()}])
    rows = list(untrained)
    for rate in (FIXED, MATCHED):
        for degree in settings.degrees:
            own = MATCHED if rate == MATCHED and degree != settings.degree else FIXED
            cell = partial(_training, at, settings, degree, own)
            done = work.cell(f"{at.seed}-{own}-{degree}", cell)
            losses = np.array([row["loss"] for row in done if row["kind"] == "loss"])
            done = [{**row, "rate": rate, "configuration": f"{rate} {degree}"} for row in done]
            rows += done[:-1]
            rows.append({**done[-1], **before[0], "steps_to_share": steps_to_share(losses, still)})
    return rows


def _untrained(at: Subject, settings: Settings) -> list[Row]:
    """Return the losses of the model as it was, on the batches and dropout of the trainings."""
    _, log = at.tune(PropulsionConfig(settings.degree), STILL)
    return [
        {"kind": "loss", "seed": at.seed, "configuration": "untrained", "step": step, "loss": loss}
        for step, loss in enumerate(log.losses, start=1)
    ]


def _training(at: Subject, settings: Settings, degree: int, rate: str) -> list[Row]:
    """Train one degree: its losses, then what it came to."""
    matching = settings.degree / degree if rate == MATCHED else 1.0
    learning_rate = settings.learning_rate * matching
    row = {
        "seed": at.seed,
        "task": at.materials.task.name,
        "metric_name": at.materials.task.metric,
        "degree": degree,
        "learning_rate": learning_rate,
    }

    def more(tuned: LoadedModel, log: TrainingLog) -> Row:
        return {**_gains(tuned.model), "losses": log.losses}

    found = grid.trained(at, PropulsionConfig(degree), learning_rate, more)
    losses = found.pop("losses", [])
    rows = [
        {"kind": "loss", **row, "step": step, "loss": loss}
        for step, loss in enumerate(losses, start=1)
    ]
    return [*rows, {"kind": "training", **row, **found}]


def steps_to_share(losses: np.ndarray, untrained: Sequence[float]) -> int | None:
    """Return after how many steps the loss is down to ``SHARE`` of the untrained model's.

    Both are means over the last ``WINDOW`` steps; None where it never is, or there are no losses.
    """
    if not len(losses):
        return None
    window = np.ones(min(WINDOW, len(losses)))
    sums, still = (np.convolve(values, window, "valid") for values in (losses, untrained))
    found = first_step(sums <= SHARE * still)
    return None if found is None else found + len(window) - 1
