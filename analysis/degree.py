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

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy import stats
from torch import nn

from analysis.fixtures import grid
from analysis.fixtures.subject import Subject, subject
from analysis.framework.options import Training
from analysis.framework.rulebook import SIGNIFICANCE
from analysis.framework.rules import FAILS, HOLDS, NOT_TESTABLE, Verdict, effect, verdict
from analysis.framework.study import Check, Row, Study, Work, main, seeds
from ntk_propulsion.figures import style
from ntk_propulsion.kernels.kernel import Kernel
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
ROUNDING = 1e-4  # of float32 kernels


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


def judge(rows: Sequence[Row], settings: Settings) -> list[Verdict]:
    """Judge A1a and A1b."""
    done = [row for row in rows if row["kind"] == "training"]
    fixed, matched = (_by_degree(done, rate) for rate in (FIXED, MATCHED))
    of_fixed, of_matched = _effect(fixed), _effect(matched)
    falls = _spread_falls(fixed, matched)
    about = (
        f"{grid.about(done, settings)} (AdamW, linear decay, gradients clipped at 1); degrees "
        f"{', '.join(map(str, settings.degrees))}; matched rate: {settings.learning_rate:g} x "
        f"{settings.degree} / k"
    )
    lost = [k for k in settings.degrees if k not in fixed or k not in matched]
    note = f"; left out, as runs diverged: {', '.join(map(str, lost))}" if lost else ""
    return [
        verdict(
            "A1a",
            _best_inside(fixed, of_fixed, settings.degrees),
            f"rate fixed, mean metric {_means(fixed)}: p = {of_fixed:.2g}{note}",
            about,
        ),
        verdict(
            "A1b",
            HOLDS if of_matched < SIGNIFICANCE else FAILS if falls < SIGNIFICANCE else NOT_TESTABLE,
            f"rate matched, mean metric {_means(matched)}: p = {of_matched:.2g}; spread smaller "
            f"than at the fixed rate: p = {falls:.2g}{note}",
            about,
        ),
    ]


def _by_degree(done: Sequence[Row], rate: str) -> dict[int, np.ndarray]:
    """Return each degree's metrics over seeds, of the degrees at which none is missing."""
    values = grid.by_configuration([row for row in done if row["rate"] == rate], "metric")
    found = {int(name.split()[1]): metric for name, metric in values.items()}
    return {degree: metric for degree, metric in found.items() if np.isfinite(metric).all()}


def _effect(values: Mapping[int, np.ndarray]) -> float:
    """Return the p-value of the degree's effect; NaN where there is nothing to compare."""
    return effect(np.stack(list(values.values()), axis=1)) if values else math.nan


def _means(values: Mapping[int, np.ndarray]) -> str:
    return ", ".join(f"{degree}: {metric.mean():.3f}" for degree, metric in values.items())


def _best_inside(values: Mapping[int, np.ndarray], effect: float, degrees: Sequence[int]) -> str:
    """Judge A1a. The ends are those of the range asked for: a degree that diverged is not best."""
    if not effect < SIGNIFICANCE:
        return NOT_TESTABLE
    means = {degree: metric.mean() for degree, metric in values.items()}
    best = {degree for degree, mean in means.items() if mean == max(means.values())}
    return FAILS if best & {min(degrees), max(degrees)} else HOLDS


def _spread_falls(fixed: Mapping[int, np.ndarray], matched: Mapping[int, np.ndarray]) -> float:
    """Return the p-value, by an F-test, of the means' spread being smaller at the matched rate."""
    wide, narrow = ([m.mean() for m in values.values()] for values in (fixed, matched))
    if min(len(wide), len(narrow)) < 2 or not np.ptp(wide) > 0:
        return math.nan
    with np.errstate(divide="ignore"):
        ratio = np.var(wide, ddof=1) / np.var(narrow, ddof=1)
    return float(stats.f.sf(ratio, len(wide) - 1, len(narrow) - 1))


def check(rows: Sequence[Row], settings: Settings) -> list[Check]:
    """Check that the kernel goes by the square of the degree."""
    errors = [row["relative_error"] for row in rows if row["kind"] == "kernel"]
    return [
        Check(
            "K_P(k) = k**2 K_P(1) at z = 1",
            max(errors) <= ROUNDING,
            f"largest relative error {max(errors):.1e} over {len(errors)} degrees",
        )
    ]


def draw(rows: Sequence[Row], settings: Settings) -> Mapping[str, Figure]:
    """Draw the paths' distances over steps, and metric and loss by degree."""
    return {"figure": _figure(rows, settings)}


@style.styled
def _figure(rows: Sequence[Row], settings: Settings) -> Figure:
    figure = Figure(figsize=(11, 8.4))
    (sgd, adam), (metric, loss) = figure.subplots(2, 2)
    adam.sharey(sgd)
    _draw_paths(sgd, rows, "sgd", "(k, lr) against (1, $k^2$ lr), SGD", "{:g} of stable lr")
    _draw_paths(
        adam, rows, "adam", "(k, lr) against (1, k lr), Adam", f"lr {{:g}} at k = {settings.degree}"
    )
    sgd.set_ylabel("$|f_k - f_1|\\ /\\ |f_1 - f_0|$: outputs apart")
    done = [row for row in rows if row["kind"] == "training"]
    _draw_degrees(metric, done, "metric")
    before = float(np.mean([row["metric_before"] for row in done]))
    metric.axhline(before, color=style.GREY, linestyle="--", linewidth=1, label="before training")
    metric.set_ylabel(f"{done[0]['metric_name']} after {settings.steps} steps")
    metric.legend()
    _draw_degrees(loss, done, "loss")
    still = [row for row in rows if row.get("configuration") == "untrained"]
    last = [row["loss"] for row in still if row["step"] > settings.steps - WINDOW]
    loss.axhline(
        float(np.mean(last)), color=style.GREY, linestyle="--", linewidth=1, label="untrained"
    )
    loss.set_ylabel(f"training loss, mean of steps {max(1, settings.steps - WINDOW + 1)} on")
    loss.legend()
    style.frame(
        figure,
        "The degree k: a step size, and what is more than that",
        f"{grid.about(done, settings)}. Above: full batch, one draw of N examples; distance of the "
        f"outputs over the change of degree 1's; above the grey line ({APART:g}) they count as "
        "apart. Below: dots are seeds, lines their means (broken where a run diverged); matched: "
        f"learning rate x {settings.degree} / k.",
    )
    return figure


def _draw_paths(ax: Any, rows: Sequence[Row], optimiser: str, title: str, label: str) -> None:
    """Draw a line for each degree (colour) and rate (dashes)."""
    own = [
        row
        for row in rows
        if row["kind"] == "path" and row["optimiser"] == optimiser and row["degree"] > 1
    ]
    looks = style.appearance(f"k = {row['degree']}" for row in own)
    dashes = dict(zip(dict.fromkeys(row["rate"] for row in own), _dashes(), strict=False))
    for name, (colour, _) in looks.items():
        ax.plot([], [], color=colour, label=name)
    for rate, dash in dashes.items():
        ax.plot([], [], color=style.GREY, linestyle=dash, label=label.format(rate))
        for name, (colour, _) in looks.items():
            line = [r for r in own if f"k = {r['degree']}" == name and r["rate"] == rate]
            values = [row["apart"] for row in line]
            ax.plot([row["step"] for row in line], values, dash, color=colour)
    ax.axhline(APART, color=style.GREY, linewidth=1)
    ax.set_yscale("log")
    ax.set_title(title)
    ax.set_xlabel("step")
    ax.xaxis.get_major_locator().set_params(integer=True)
    if own:
        ax.legend(ncols=2)


def _dashes() -> Iterator[Any]:
    yield from ("-", "--", ":", "-.")
    for dots in range(2, 9):
        yield (0, (5, 1, *(1, 1) * dots))


def _draw_degrees(ax: Any, done: Sequence[Row], column: str) -> None:
    """Draw a column by degree, at the fixed and at the matched rate."""
    degrees = list(dict.fromkeys(row["degree"] for row in done))
    places = np.arange(len(degrees))
    for rate, colour, marker, shift in (
        (FIXED, style.GREEN, "D", -0.08),
        (MATCHED, style.PURPLE, "v", 0.08),
    ):
        values = grid.by_configuration([row for row in done if row["rate"] == rate], column)
        table = np.stack(list(values.values()))
        for seed in range(table.shape[1]):
            ax.plot(places + shift, table[:, seed], marker, color=colour, alpha=0.5, markersize=5)
        ax.plot(places + shift, table.mean(axis=1), color=colour, label=f"learning rate {rate}")
    ax.set_xticks(places, [str(degree) for degree in degrees])
    ax.set_xlabel("degree k")


STUDY = Study(
    name="degree",
    question="Does the degree do more than set a step size?",
    settings=Settings,
    quick=grid.QUICK
    | {
        "examples": 4,
        "degrees": (1, 15, 55),
        "path_degrees": (55,),
        "path_steps": 4,
        "sgd_shares": (0.5,),
        "adam_rates": (1e-3,),
    },
    measure=measure,
    judge=judge,
    draw=draw,
    check=check,
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
