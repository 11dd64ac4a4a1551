"""Judging what was measured: verdicts by the rules, and checks of what must hold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.convergence.measurements import Settings
from analysis.convergence.runs import EVALUATION, PLACE, RUN, TRIAL
from analysis.framework.rules import FAILS, HOLDS, NOT_TESTABLE, Estimate, Verdict, paired, verdict
from analysis.framework.study import Check
from analysis.framework.tables import Row, grouped, where
from ntk_propulsion import words

OTHERS = ("lora", "adalora")


def ratios(rows: Sequence[Row]) -> dict[str, Estimate]:
    """Return log2 of each other method's steps to the level over Propulsion's, by method.

    Means over tasks and sizes, paired over seeds.
    """
    counted = [row for row in rows if row["kind"] == RUN and row["steps_to_level"] is not None]
    found: dict[str, list[float]] = {other: [] for other in OTHERS}
    for group in grouped(counted, "seed").values():
        steps = {
            method: np.array([row["steps_to_level"] for row in own], dtype=float)
            for (method,), own in grouped(group, "method").items()
        }
        for other, values in found.items():
            values.append(float(np.log2(steps[other] / steps["propulsion"]).mean()))
    return {other: paired(values, len(OTHERS)) for other, values in found.items() if values}


def judge(rows: Sequence[Row], settings: Settings) -> list[Verdict]:
    """Judge E2."""
    found = ratios(rows)
    lows, highs = ([getattr(e, end) for e in found.values()] for end in ("low", "high"))
    if any(high < 0 for high in highs):
        outcome = FAILS
    else:
        outcome = HOLDS if lows and all(low > 0 for low in lows) else NOT_TESTABLE
    said = (
        f"log2(steps of {words.tuning(other)} / of Propulsion) {estimate}"
        for other, estimate in found.items()
    )
    text = "; ".join([*said, _reached(rows), _rates(rows)])
    return [verdict("E2", outcome, text, about(settings))]


def _reached(rows: Sequence[Row]) -> str:
    """Say how many runs reached their level, by method, and how many places had none."""
    done = [row for row in rows if row["kind"] == RUN]
    counted = [row for row in done if row["level"] is not None]
    by_method = grouped(counted, "method").items()
    told = (f"{words.tuning(m)} {sum(r['reached'] for r in own)}" for (m,), own in by_method)
    places, left = len(grouped(counted, *PLACE)), len(grouped(done, *PLACE))
    text = f"reached in {places} places: {', '.join(told) or 'none'}"
    lost = left - places
    return f"{text}; left out, as full fine-tuning improved nothing: {lost}" if lost else text


def _rates(rows: Sequence[Row]) -> str:
    """Say which learning rates were chosen, and which at the edge of those swept."""
    told = (
        f"{row['task']}, {words.tuning(row['method'])} {row['learning_rate']:g}"
        f"{' (edge of the sweep)' if row['at_edge'] else ''}"
        for row in where(rows, kind=TRIAL, chosen=True)
    )
    return f"learning rates: {'; '.join(told)}"


def about(settings: Settings) -> str:
    """Say what the numbers rest on."""
    head = {"random": "new random head", "probe": "head fitted to the training examples"}
    return (
        f"{settings.model}, {', '.join(settings.task_names)}, "
        f"{', '.join(map(str, settings.sizes))} training examples, {settings.seeds} seeds, "
        f"{head[settings.head]}, trained along by every method, degree {settings.degree}, "
        f"{settings.steps} steps of {settings.batch_size} (AdamW, {settings.warmup} of warm-up, "
        f"then constant), metric on {settings.test_examples} test examples, texts of at most "
        f"{settings.max_length} tokens"
    )


def check(rows: Sequence[Row], settings: Settings) -> list[Check]:
    """Check that all methods start alike, and that each had as many learning rates to try."""
    starts = grouped([r for r in rows if r["kind"] == EVALUATION and not r["step"]], *PLACE)
    apart = [place for place, own in starts.items() if len({r["metric"] for r in own}) > 1]
    tried = grouped([r for r in rows if r["kind"] == TRIAL], "task", "method")
    counts = {len(own) for own in tried.values()}
    return [
        Check(
            "before training, all methods of a task, size and seed have the same metric",
            not apart,
            f"apart: {'; '.join(' '.join(map(str, p)) for p in apart) or 'none'} of {len(starts)}",
        ),
        Check(
            "every method tried as many learning rates",
            len(counts) == 1,
            f"tried: {', '.join(map(str, sorted(counts)))}",
        ),
    ]
