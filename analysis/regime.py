"""Did training stay in the kernel regime, and where did z go? Claims T3, T4 and A4."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from analysis.fixtures.grid import QUICK
from analysis.fixtures.subject import Subject, subject
from analysis.framework.command import main
from analysis.framework.options import FULL_RATE, MAX_LENGTH, PACKAGED, Tuned
from analysis.framework.rules import FAILS, HOLDS, NOT_TESTABLE, Estimate, Verdict, verdict, within
from analysis.framework.study import Check, Study, Work
from analysis.framework.tables import Row
from ntk_propulsion.figures import style
from ntk_propulsion.kernels import model_outputs
from ntk_propulsion.measurements import regime
from ntk_propulsion.models.loaded import LoadedModel
from ntk_propulsion.propulsion import NEAR_ONE, TOTAL, PropulsionConfig, scaling_statistics, wrap
from ntk_propulsion.report.claims import NEARLY_ALL
from ntk_propulsion.runs.options import option
from ntk_propulsion.theory.inputs import as_array

GLUE = ("sst2", "rte", "cola", "stsb")
METHODS = ("full", "propulsion")
MEASURES = {"linearization": "linearization error", "drift": "feature drift"}
RESAMPLES = 2000


@dataclass(frozen=True)
class Settings(Tuned):
    """Settings of the study."""

    examples: int = option(16, "N, examples of the Jacobians.")
    steps: int = option(80, "Steps of each fine-tuning.")
    tasks: tuple[str, ...] = option(
        (), "Tasks.  [default: the four GLUE tasks with --data, else rotten-tomatoes]"
    )
    max_length: int = option(96, MAX_LENGTH)
    full_rate: float = option(5e-5, FULL_RATE)

    @property
    def task_names(self) -> tuple[str, ...]:
        """The tasks, as they were asked for or by what data there is."""
        return self.tasks or (GLUE if self.data else PACKAGED[:1])


def measure(settings: Settings, work: Work) -> list[Row]:
    """Fine-tune every task both ways and measure how far each left the kernel regime."""
    rows: list[Row] = []
    for task in settings.task_names:
        rows += work.cell(task, partial(_rows, settings, task))
    return rows


def _rows(settings: Settings, task: str) -> list[Row]:
    at = subject(settings, 0, task, max_length=settings.max_length)
    config = PropulsionConfig(settings.degree)
    wrapped = at.copy()
    wrap(wrapped.model, config)
    ends = {
        "full": (at.materials.loaded, at.tune(None, settings.full_rate)[0]),
        "propulsion": (wrapped, at.tune(config, settings.learning_rate)[0]),
    }
    rows = []
    for method, (before, after) in ends.items():
        for row in _measured(at, method, before, after):
            rows.append({"task": task, "method": method, **row})
    z = next(s for s in scaling_statistics(ends["propulsion"][1].model) if s.module == TOTAL)
    share = {"kind": "range", "value": z.share_near_one, "low": z.min, "high": z.max}
    return [*rows, {"task": task, "method": "propulsion", **share}]


def _measured(at: Subject, method: str, before: LoadedModel, after: LoadedModel) -> list[Row]:
    """Return both measures in total, with intervals, and for each example."""
    outputs = at.settings.outputs
    found = regime.measure_regime(
        before.model,
        after.model,
        at.batch,
        method,
        outputs,
        options=at.options,
    )
    n = len(found.drift_per_example)
    moved = found.outputs - as_array(model_outputs(before.model, at.batch, outputs), "f_0")
    energy = np.diag(as_array(found.before, "K_0")).reshape(n, -1).sum(axis=1)
    parts = {
        "linearization": (found.linearization_per_example, (moved.reshape(n, -1) ** 2).sum(axis=1)),
        "drift": (found.drift_per_example, energy),
    }
    totals = {"linearization": found.linearization_error, "drift": found.feature_drift}
    rows: list[Row] = [
        {"kind": "metric", "value": at.metric(before)},
        {"kind": "metric after", "value": at.metric(after)},
    ]
    for kind, (relative, weights) in parts.items():
        low, high = interval(relative, weights)
        rows.append({"kind": kind, "value": totals[kind], "low": low, "high": high})
        rows += [
            {"kind": f"{kind} of one", "example": i, "value": float(value)}
            for i, value in enumerate(relative)
        ]
    return rows


def total(relative: np.ndarray, weights: np.ndarray) -> float:
    """Return the relative error over all examples from each one's: the root of a weighted mean."""
    return float(np.sqrt((weights * relative**2).sum() / weights.sum()))


def interval(relative: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Return the 95% bootstrap interval of `total` over examples."""
    rng = np.random.default_rng(0)
    picks = rng.integers(len(relative), size=(RESAMPLES, len(relative)))
    drawn = [total(relative[pick], weights[pick]) for pick in picks if weights[pick].any()]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def judge(rows: Sequence[Row], settings: Settings) -> list[Verdict]:
    """Judge T3, T4 and A4."""
    told = about(rows, settings)
    judged = []
    for name, kind in (("T3", "linearization"), ("T4", "drift")):
        found = {
            f"{row['task']}, {row['method']}": Estimate(row["value"], row["low"], row["high"])
            for row in rows
            if row["kind"] == kind
        }
        text = f"{MEASURES[kind]}: " + "; ".join(f"{place} {e}" for place, e in found.items())
        judged.append(verdict(name, within(found, regime.HOLDS), text, told))
    return [*judged, range_verdict(rows, settings, told)]


def range_verdict(rows: Sequence[Row], settings: Tuned, told: str) -> Verdict:
    """Judge A4 by the rows of kind range: Adam moves z by at most the sum of its learning rates."""
    found = [row for row in rows if row["kind"] == "range"]
    reach = settings.learning_rate * (settings.steps + 1) / 2
    if reach < 2 * (NEAR_ONE[1] - 1):
        outcome = NOT_TESTABLE
    else:
        outcome = HOLDS if all(row["value"] >= NEARLY_ALL for row in found) else FAILS
    text = "; ".join(
        f"{row['task']}: {100 * row['value']:.1f}% in [0.98, 1.02], all in "
        f"[{row['low']:.3f}, {row['high']:.3f}]"
        for row in found
    )
    return verdict("A4", outcome, f"{text}. Adam could move z by {reach:.3f} at most", told)


def about(rows: Sequence[Row], settings: Settings) -> str:
    """Say what the numbers rest on."""
    tasks = ", ".join(dict.fromkeys(row["task"] for row in rows))
    return (
        f"{settings.model}, {tasks}, N = {settings.examples}, 1 seed, {settings.outputs}, "
        f"{settings.head} head, degree {settings.degree}, {settings.steps} steps of "
        f"{settings.batch_size} at {settings.full_rate:g} (full) and {settings.learning_rate:g}"
    )


def check(rows: Sequence[Row], settings: Settings) -> list[Check]:
    """Check that the examples' errors make up the total's."""
    outside = [
        row["task"]
        for row in rows
        if row["kind"] in MEASURES
        and not _range_of(rows, row)[0] - 1e-3 <= row["value"] <= _range_of(rows, row)[1] + 1e-3
    ]
    name = "a total lies between its examples' least and largest value"
    return [Check(name, not outside, f"outside: {', '.join(outside) or 'none'}")]


def _range_of(rows: Sequence[Row], whole: Row) -> tuple[float, float]:
    values = [
        row["value"]
        for row in rows
        if row["kind"] == f"{whole['kind']} of one"
        and (row["task"], row["method"]) == (whole["task"], whole["method"])
    ]
    return min(values), max(values)


@style.styled
def regimes(rows: Sequence[Row], settings: Settings) -> Figure:
    """Draw both measures by task and method, every example and in total."""
    figure = Figure(figsize=(11, 4.6))
    axes = figure.subplots(1, 2, sharey=True)
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    for ax, (kind, label) in zip(axes, MEASURES.items(), strict=True):
        for shift, method in ((-0.15, "full"), (0.15, "propulsion")):
            colour = style.TUNING_COLOURS[method]
            for place, task in enumerate(tasks):
                own = [r for r in rows if (r["task"], r["method"]) == (task, method)]
                each = [r["value"] for r in own if r["kind"] == f"{kind} of one"]
                x = place + shift
                ax.plot([x] * len(each), each, "o", color=colour, alpha=0.3, markersize=4)
                whole = next(r for r in own if r["kind"] == kind)
                ax.plot([x, x], [whole["low"], whole["high"]], color="black", linewidth=1)
                name = {"full": "full fine-tuning", "propulsion": "Propulsion"}[method]
                shown = name if place == 0 else None
                ax.plot(x, whole["value"], "D", color=colour, mec="black", label=shown)
        for level, words in ((regime.HOLDS, "holds"), (regime.WEAKLY, "weakly")):
            ax.axhline(level, color=style.GREY, linestyle="--", linewidth=1)
            ax.annotate(words, (len(tasks) - 0.55, level), ha="right", va="top", size=8)
        ax.set_xticks(range(len(tasks)), tasks)
        ax.set_yscale("log")
        ax.set_title(label)
    axes[0].set_ylabel("relative to the whole change, or to $|J_0|$")
    axes[0].legend(loc="lower right")
    style.frame(
        figure,
        "How far training left the kernel regime",
        f"{about(rows, settings)}. Left: |f_t - f_lin| / |f_t - f_0|; right: |J_t - J_0| / |J_0|, "
        "J of what the method trains. Diamonds: all examples, 95% bootstrap; dots: single ones. "
        "Below a dashed line the property holds, or holds weakly.",
    )
    return figure


def draw(rows: Sequence[Row], settings: Settings) -> Mapping[str, Figure]:
    """Draw the measures."""
    return {"figure": regimes(rows, settings)}


STUDY = Study(
    name="regime",
    question="Did training stay in the kernel regime, and z near 1?",
    settings=Settings,
    quick=QUICK | {"max_length": 32},
    measure=measure,
    judge=judge,
    draw=draw,
    check=check,
)

if __name__ == "__main__":
    sys.exit(main(STUDY))
