"""Judging what was measured: verdicts by the rules, and checks of what must hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from analysis.fixtures.networks import HIDDEN_LAYERS, INPUTS
from analysis.framework.rules import (
    FAILS,
    HOLDS,
    NOT_TESTABLE,
    Estimate,
    Verdict,
    paired,
    verdict,
    within,
    worst,
)
from analysis.framework.study import Check
from analysis.framework.tables import Row
from analysis.prediction.measurements import LINEAR, LOSSES, OUTPUTS, TEST, Settings, slopes
from ntk_propulsion.measurements import regime

EXPONENT = -0.5  # the slope on width that P1 asks for
ROUNDING = 1e-8  # of float64 trainings


def errors(rows: Sequence[Row], settings: Settings, loss: str) -> dict[str, Estimate]:
    """Return the relative error on test examples after the last step by method, over seeds.

    A training that diverged was not predicted: its error is infinite.
    """
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["kind"] != OUTPUTS or row["loss"] != loss:
            continue
        if row.get("note"):
            found.setdefault(row["method"], []).append(np.inf)
        elif (row["examples"], row["step"]) == (TEST, settings.steps):
            found.setdefault(row["method"], []).append(row["relative_error"])
    return {
        method: paired(values) if np.isfinite(values).all() else Estimate(*[np.inf] * 3)
        for method, values in found.items()
    }


def judge(rows: Sequence[Row], settings: Settings) -> list[Verdict]:
    """Judge P1 and P2."""
    steep = slopes(rows)
    outcomes = [_reaches(found) for found in steep.values()]
    text = "slope by loss: " + "; ".join(f"{loss} {found}" for loss, found in steep.items())
    first = verdict("P1", worst(outcomes), text, about_networks(settings))
    squared, other = (errors(rows, settings, loss) for loss in LOSSES)
    text = f"squared loss: {_listed(squared)} (cross-entropy: {_listed(other)})"
    second = verdict("P2", within(squared, regime.HOLDS), text, about(settings))
    return [first, second]


def _reaches(found: Estimate) -> str:
    if not np.isfinite(found.low):  # one seed has no interval
        return NOT_TESTABLE
    return HOLDS if found.low <= EXPONENT else FAILS


def _listed(found: Mapping[str, Estimate]) -> str:
    return ", ".join(f"{method} {estimate}" for method, estimate in found.items()) or "none"


def about_networks(settings: Settings) -> str:
    """Say what the numbers of the random networks rest on."""
    return (
        f"tanh perceptron, {HIDDEN_LAYERS} hidden layers, {INPUTS} normal inputs, widths "
        f"{min(settings.widths)} to {max(settings.widths)}, 2 logits, N = {settings.examples} "
        f"training and as many test examples, {settings.network_seeds} seeds (network and inputs), "
        f"{settings.network_steps} steps of full-batch descent at half the stable rate, float64"
    )


def about(settings: Settings) -> str:
    """Say what the numbers of the transformer rest on."""
    return (
        f"{settings.model}, {settings.task_name}, {settings.head} head, N = {settings.examples} "
        f"training and {settings.test_examples} test texts cut to {settings.max_length} tokens, "
        f"{settings.outputs}, {settings.seeds} seeds, degree {settings.degree}, {settings.steps} "
        "steps of full-batch descent at half the stable rate"
    )


def check(rows: Sequence[Row], settings: Settings) -> list[Check]:
    """Check that the training of a last layer alone, which is linear, is predicted to rounding."""
    found: dict[str, list[float]] = {}
    for row in (row for row in rows if row["kind"] == LINEAR):
        found.setdefault(row.get("optimiser") or row["loss"], []).append(row["relative_error"])
    return [
        Check(
            f"training the last layer alone is predicted to rounding: {name}",
            max(values) <= ROUNDING,
            f"{max(values):.1e} over {len(values)} trainings",
        )
        for name, values in found.items()
    ]
