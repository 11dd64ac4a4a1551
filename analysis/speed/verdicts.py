"""Judging what was measured: verdicts by the rules, and checks of what must hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from analysis.framework.rules import HOLDS, NOT_TESTABLE, Estimate, Verdict, paired, verdict, within
from analysis.framework.study import Check
from analysis.framework.tables import Row
from analysis.speed.measurements import LINEAR, MATCHED, STEPS, Settings

OCTAVES = 0.5  # by which measured steps may differ from predicted ones: the rule's


def octaves(rows: Sequence[Row], settings: Settings) -> dict[tuple[str, float], list[float] | None]:
    """Return log2(measured / predicted steps) over seeds by method and level, matched rates.

    A training that did not get there though it was predicted to counts as one step more than the
    cap. None where the prediction lies beyond the cap at a seed: there the cap would choose what
    is measured.
    """
    found: dict[tuple[str, float], list[float] | None] = {}
    for row in rows:
        if row["kind"] != STEPS or row["rates"] != MATCHED:
            continue
        key = row["method"], row["level"]
        known = found.setdefault(key, [])
        if row["predicted"] > settings.steps:
            found[key] = None
        elif known is not None:
            steps = settings.steps + 1 if row["measured"] is None else row["measured"]
            known.append(float(np.log2(steps / row["predicted"])))
    return found


def judge(rows: Sequence[Row], settings: Settings) -> list[Verdict]:
    """Judge E2b, without the method whose model is linear."""
    every = {key: v for key, v in octaves(rows, settings).items() if key[0] != LINEAR}
    found = {key: paired(values) for key, values in every.items() if values is not None}
    outcome = within({f"{method} {level}": e for (method, level), e in found.items()}, OCTAVES)
    methods = list(dict.fromkeys(method for method, _ in every))
    silent = [method for method in methods if method not in {name for name, _ in found}]
    if silent and outcome == HOLDS:
        outcome = NOT_TESTABLE
    told = [_told(method, found) for method in methods if method not in silent]
    if silent:
        told.append(f"every level beyond the cap: {', '.join(silent)}")
    text = "log2(measured / predicted steps) by level: " + ("; ".join(told) or "none")
    return [verdict("E2b", outcome, text, about(settings))]


def _told(method: str, found: Mapping[tuple[str, float], Estimate]) -> str:
    own = (f"{level:g}: {e}" for (name, level), e in found.items() if name == method)
    return f"{method} {', '.join(own)}"


def about(settings: Settings) -> str:
    """Say which model, data, N and seeds the numbers rest on."""
    return (
        f"{settings.model}, {settings.task_name}, {settings.head} head, N = {settings.examples} "
        f"training texts cut to {settings.max_length} tokens, {settings.outputs}, "
        f"{settings.seeds} seeds, degree {settings.degree}, at most {settings.steps} steps of "
        "full-batch descent on squared loss at half the stable rate; kernels at theta_0 of what "
        "trains"
    )


def check(rows: Sequence[Row], settings: Settings) -> list[Check]:
    """Check that a model linear in what trains takes the predicted steps, to one step."""
    linear = [
        row
        for row in rows
        if (row["kind"], row.get("method"), row.get("rates")) == (STEPS, LINEAR, MATCHED)
        and row["predicted"] <= settings.steps - 1
    ]
    if not linear:
        return []
    missed = max(
        np.inf if row["measured"] is None else abs(row["measured"] - row["predicted"])
        for row in linear
    )
    name = "the head alone, a linear model, takes the predicted number of steps, to one step"
    text = f"off by {missed:.2g} steps at most, over {len(linear)} levels and seeds"
    return [Check(name, bool(missed <= 1), text)]
