"""Judging what was measured: verdicts by the rules, and checks of what must hold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.framework.rules import (
    FAILS,
    HOLDS,
    NOT_TESTABLE,
    Estimate,
    Verdict,
    equality,
    verdict,
    worst,
)
from analysis.framework.study import Check
from analysis.framework.tables import Row
from analysis.theorem.measurements import Settings
from analysis.theorem.set_ups import ADDITIVE
from ntk_propulsion.theory.error_budget import STEPS


def judge(rows: Sequence[Row], settings: Settings) -> list[Verdict]:
    """Judge T1, T1b, T1c and T5."""
    about = (
        f"{settings.model}, {', '.join(settings.task_names)}, N = {settings.examples}, 1 draw, "
        f"{settings.outputs}, probe head, degree {settings.degree}, all layers scaled"
    )
    tasks = settings.task_names
    t1 = {task: [_equal(rows, task, part) for part in ("all", "without_head")] for task in tasks}
    t5 = {task: _equal(rows, task, "all") for task in tasks}
    shape = "; ".join(
        f"{task} {_estimate(rows, task, 'all', 'best_scale_error')} with head, "
        f"{_estimate(rows, task, 'without_head', 'best_scale_error')} without"
        for task in tasks
    )
    maps = "; ".join(
        f"{task} raw {_estimate(rows, task, 'all', 'relative_frobenius')}, "
        f"CKA {_estimate(rows, task, 'all', 'cka')}"
        for task in tasks
    )
    return [
        verdict(
            "T1",
            worst([v for found in t1.values() for v in found]),
            f"best-scale error: {shape}. Over all tasks and parts: {_other_set_ups(rows)}",
            about,
        ),
        _control(rows, settings, about),
        _largest_step(rows, settings, about),
        verdict("T5", worst(list(t5.values())), maps, about),
    ]


def _estimate(rows: Sequence[Row], task: str, part: str, distance: str) -> Estimate:
    row = next(
        r
        for r in rows
        if r.get("kind") == "distance"
        and r["task"] == task
        and r["part"] == part
        and r["point"] == "theta0"
        and r["tuning"] == "propulsion"
        and r["distance"] == distance
    )
    low, high = (row["value"] if row[end] is None else row[end] for end in ("low", "high"))
    return Estimate(row["value"], low, high)


def _mean(rows: Sequence[Row], task: str, tuning: str) -> float:
    """Return the best-scale error without the head, a mean over all tunings of a name."""
    found = [
        row["value"]
        for row in rows
        if row.get("kind") == "distance"
        and row["tuning"].startswith(tuning)
        and (row["task"], row["part"], row["point"], row["distance"])
        == (task, "without_head", "theta0", "best_scale_error")
    ]
    return float(np.mean(found)) if found else np.nan


def _other_set_ups(rows: Sequence[Row]) -> str:
    """Say how far the best-scale error goes over other N, outputs and normalisations."""
    by_set_up: dict[str, list[float]] = {}
    for row in rows:
        if row.get("kind") == "set-up" and row["distance"] == "best_scale_error":
            by_set_up.setdefault(row["set_up"], []).append(row["value"])
    return ", ".join(f"{name} {min(v):.2f} to {max(v):.2f}" for name, v in by_set_up.items())


def _equal(rows: Sequence[Row], task: str, part: str) -> str:
    raw = _estimate(rows, task, part, "relative_frobenius")
    return equality(raw, _estimate(rows, task, part, "best_scale_error"))


def _control(rows: Sequence[Row], settings: Settings, about: str) -> Verdict:
    found = {
        row["task"]: Estimate(row["value"], row["low"], row["high"])
        for row in rows
        if row.get("kind") == "control"
    }
    text = "unbiased CKA, Propulsion minus random subsets: "
    text += "; ".join(f"{task} {value}" for task, value in found.items())
    text += ". Best-scale error, which sees the mean too, Propulsion and subsets: " + "; ".join(
        f"{task} {_mean(rows, task, 'propulsion'):.2f} and {_mean(rows, task, 'random_subset'):.2f}"
        for task in found
    )
    if any(value.high < 0 for value in found.values()):
        outcome = FAILS
    else:
        above = found and all(value.low > 0 for value in found.values())
        outcome = HOLDS if above else NOT_TESTABLE
    return verdict("T1b", outcome, text, about)


def budget_angles(rows: Sequence[Row], part: str = "without_head") -> dict[str, dict[str, float]]:
    """Return each task's angle (radians) of each step of the error budget."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        if row.get("kind") == "budget" and row["part"] == part and row["distance"] == "angle":
            found.setdefault(row["task"], {})[row["step"]] = row["value"]
    return found


def _largest_step(rows: Sequence[Row], settings: Settings, about: str) -> Verdict:
    angles = budget_angles(rows)
    largest = [max(STEPS, key=lambda step, a=by: a[step]) for by in angles.values()]  # type: ignore[misc]
    sampling = [step == "sampling" for step in largest]
    outcome = HOLDS if largest and all(sampling) else FAILS if not any(sampling) else NOT_TESTABLE
    text = "; ".join(
        f"{task}: " + ", ".join(f"{step} {np.degrees(by[step]):.0f}°" for step in (*STEPS, "total"))
        for task, by in angles.items()
    )
    return verdict("T1c", outcome if largest else NOT_TESTABLE, text, about)


def check(rows: Sequence[Row], settings: Settings) -> list[Check]:
    """Check that the steps' angles bound the total's."""
    worst_excess = max(
        (
            by["total"] - sum(by[step] for step in STEPS)
            for part in ("all", "without_head")
            for by in budget_angles(rows, part).values()
        ),
        default=np.nan,
    )
    return [
        Check(
            "the angle from K_F to K_P is at most the sum of its steps' angles",
            bool(worst_excess <= ADDITIVE),
            f"largest total minus sum: {worst_excess:.3g} radians",
        )
    ]
