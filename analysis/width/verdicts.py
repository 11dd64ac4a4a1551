"""Judging what was measured: verdicts by the rules, and checks of what must hold."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.framework.rules import (
    FAILS,
    NOT_TESTABLE,
    UP_TO_SCALE,
    Verdict,
    log_slope,
    paired,
    verdict,
)
from analysis.framework.study import Check
from analysis.framework.tables import Row
from analysis.width.curves import ALL, IDENTITY, NETWORKS, PROPULSION, WHOLE, curves
from analysis.width.measurements import Settings
from ntk_propulsion.report.answer import CLOSE

ROUNDING = 1e-9


def judge(rows: Sequence[Row], settings: Settings) -> list[Verdict]:
    """Judge W1 on the perceptron: all parameters against Propulsion."""
    by_seed = curves(rows, "best_scale_error").get(("mlp", PROPULSION, ALL), {})
    if len(by_seed) < 2:
        told = "no perceptron" if not by_seed else "one seed has no interval"
        return [verdict("W1", NOT_TESTABLE, told, about(settings))]
    found, widest = log_slope(by_seed), max(next(iter(by_seed.values())))
    error = paired([by_width[widest] for by_width in by_seed.values()])
    outcome = NOT_TESTABLE
    if found.high >= 0 or error.low > CLOSE:
        outcome = FAILS
    elif error.value <= CLOSE:
        outcome = UP_TO_SCALE
    others = {
        f"{network}, {group}": log_slope(curve)
        for (network, tuning, group), curve in curves(rows, "best_scale_error").items()
        if group in WHOLE and tuning == PROPULSION and (network, group) != ("mlp", ALL)
    }
    listed = "; ".join(f"{name}: {estimate}" for name, estimate in others.items())
    measured = f"slope {found}, error at width {widest} {error} (other slopes: {listed})"
    return [verdict("W1", outcome, measured, about(settings))]


def about(settings: Settings) -> str:
    """Say which networks, N, seeds and outputs a verdict rests on."""
    named = {
        "mlp": f"{settings.activation} perceptron, 16 normal inputs, widths "
        f"{min(settings.mlp_widths)} to {max(settings.mlp_widths)}",
        "bert": f"BERT of 2 layers on 12 random words, hidden sizes {min(settings.bert_widths)} to "
        f"{max(settings.bert_widths)}",
    }
    chosen = NETWORKS if settings.model == "all" else (settings.model,)
    return (
        f"{'; '.join(named[network] for network in chosen)}; weights and biases N(0, 1/fan_in), "
        f"embeddings N(0, 1); N = {settings.examples}, 2 {settings.outputs}, {settings.seeds} "
        f"seeds (network and inputs), degree {settings.degree}, float64"
    )


def check(rows: Sequence[Row], settings: Settings) -> list[Check]:
    """Kernels agree with plain autograd, and the output layer's part is that of f, to rounding."""
    found: dict[str, list[float]] = {}
    for row in (row for row in rows if row["kind"] == IDENTITY):
        found.setdefault(row["identity"], []).append(row["relative_error"])
    return [
        Check(name, max(errors) <= ROUNDING, f"{max(errors):.1e} over {len(errors)} networks")
        for name, errors in found.items()
    ]
