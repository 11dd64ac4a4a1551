"""Judging what was measured: verdicts by the rules, and checks of what must hold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis import regime
from analysis.framework.rules import Verdict
from analysis.framework.study import Check
from analysis.framework.tables import Row
from analysis.vectors.measurements import Settings


def judge(rows: Sequence[Row], settings: Settings) -> list[Verdict]:
    """Judge A4 on these trainings, by the judgement of the study of the regime."""
    ranges = [
        {**row, "task": f"{row['task']}, seed {row['seed']}"}
        for row in rows
        if row.get("kind") == "range"
    ]
    return [regime.range_verdict(ranges, settings, about(rows, settings))]


def about(rows: Sequence[Row], settings: Settings) -> str:
    """Say what the numbers rest on."""
    return (
        f"{settings.model}, {', '.join(settings.task_names)}, {settings.seeds} seeds, "
        f"{settings.head} head, degree {settings.degree}, {settings.steps} steps of "
        f"{settings.batch_size} at {settings.learning_rate:g} (linear decay), texts of at most "
        f"{settings.max_length} tokens"
    )


def check(rows: Sequence[Row], settings: Settings) -> list[Check]:
    """Check that all numbers of z are there and that what scales is z**k."""

    def values(kind: str) -> list[float]:
        return [row["value"] for row in rows if row.get("kind") == kind]

    counted, expected = values("numbers of z"), values("numbers expected")
    error = max(values("gain error"), default=np.inf)
    return [
        Check(
            "as many numbers of z as Propulsion trains",
            bool(counted) and counted == expected,
            f"{sorted({*counted})} of {sorted({*expected})}",
        ),
        Check("merged weights are the plain ones times z**k", error == 0, f"off by {error:g}"),
    ]
