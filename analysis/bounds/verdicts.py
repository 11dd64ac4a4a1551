"""Judging what was measured: verdicts by the rules, and checks of what must hold."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import integrate

from analysis.bounds.figure import ENERGIES, GAUSSIAN, OWN, PRETRAINED, PRINTED, TRAINED
from analysis.bounds.measurements import (
    EXAMPLE,
    EXAMPLE_EPS,
    EXAMPLE_WIDTH,
    EXAMPLES,
    SAMPLED,
    Settings,
)
from analysis.framework.options import Training
from analysis.framework.rules import FAILS, HOLDS, NOT_TESTABLE, Verdict, exceeds, verdict
from analysis.framework.study import Check
from analysis.framework.tables import Row

CLAIMS = (GAUSSIAN, PRETRAINED, PRINTED, OWN, TRAINED)
EXAMPLE_PRINTED = 0.0086


def judge(rows: Sequence[Row], settings: Settings) -> list[Verdict]:
    """Judge T2a to T2e, each on its own cells."""
    return [_judged(id, [row for row in rows if row["part"] == id], settings) for id in CLAIMS]


def _judged(id: str, cells: Sequence[Row], settings: Settings) -> Verdict:
    telling = [row for row in cells if not row["vacuous"]]
    above = [row for row in telling if _exceeds(row, len(cells))]
    outcome = FAILS if above else HOLDS if telling else NOT_TESTABLE
    measured = (
        f"{len(above)} of {len(telling)} cells above the bound ({len(cells) - len(telling)} more "
        "are vacuous)"
    )
    if telling:
        worst = max(above or telling, key=lambda row: row["observed"] / row["bound"])
        where = worst.get("layer") or f"d = {worst['width']}, x'y = {worst.get('cosine')}"
        measured += (
            f"; worst: {where}, eps {worst['eps']:g}: {worst['observed']:.3g} observed, "
            f"{worst['bound']:.3g} allowed"
        )
    return verdict(id, outcome, measured, about(settings, id))


def _exceeds(row: Row, cells: int) -> bool:
    if row["part"] in SAMPLED:
        return exceeds(row["failures"], row["trials"], row["bound"], cells)
    return row["observed"] > row["bound"]


def about(settings: Settings, id: str = "") -> str:
    """Say which model, data, N and draws a verdict, or (without id) the layers, rest on."""
    if id == GAUSSIAN:
        cosines = ", ".join(f"{cosine:g}" for cosine in settings.cosines)
        return (
            f"d = {settings.widths[0]} to {settings.widths[-1]}, unit pairs with x'y = {cosines}, "
            f"{settings.draws} independent weights each, drawn in the plane of x and y"
        )
    # By the options' own rule for the default task.
    task = Training(data=settings.data, task=settings.task).task_name
    draws = f" ({settings.seeds} draws of them)" if settings.seeds > 1 else ""
    told = (
        f"{settings.model}, {task}, N = {settings.examples} texts{draws}, {settings.outputs}, "
        f"{settings.head} head"
    )
    if id == PRETRAINED:
        return told + "; all pairs of one token of each text; W over the r.m.s. of its entries"
    if id == TRAINED:
        return told + "; the weights as they are against sigma of the layer's r.m.s."
    return told + (f"; {settings.redraws} redraws a layer" if id else "")


def check(rows: Sequence[Row], settings: Settings) -> list[Check]:
    """No bound is exceeded where its assumptions hold; moments and the example are right."""
    held = [_never_above(id, rows) for id in (GAUSSIAN, OWN)]
    return [*held, _rms_check(rows), *_example_checks(rows)]


def _never_above(id: str, rows: Sequence[Row]) -> Check:
    cells = [row for row in rows if row["part"] == id]
    above = [row for row in cells if _exceeds(row, len(cells))]
    name = f"no cell of {id}, where the bound's assumptions hold, exceeds it"
    return Check(name, not above, f"{len(above)} of {len(cells)} cells above")


def _rms_check(rows: Sequence[Row]) -> Check:
    found = [row for row in rows if row["part"] == ENERGIES]
    off = [
        abs(row["rms_redraws"] - row["rms_predicted"]) / row["rms_redraws_se"]
        for row in found
        if row["rms_redraws_se"] > 0
    ]
    worst = max(off, default=math.inf)
    name = "every layer's r.m.s. error under redraws is sqrt(2 / Gamma2), to 6 standard errors"
    return Check(name, worst <= 6, f"{len(off)} layers, {worst:.2f} standard errors at most")


def outside(energies: np.ndarray, eps: float) -> float:
    """Return P(abs(sum_j a_j chi2_j / sum_j a_j - 1) >= eps) exactly, by quadrature.

    Imhof, Computing the distribution of quadratic forms in normal variables (1961), eq. 3.2.

    Args:
        energies: a (d,), non-negative.
        eps: Relative error.
    """
    shares = energies / energies.sum()

    def above(level: float) -> float:
        def integrand(u: float) -> float:
            angle = (np.arctan(shares * u).sum() - level * u) / 2
            shrink = np.exp(-np.log1p((shares * u) ** 2).sum() / 4)
            return float(np.sin(angle) / u * shrink)

        return 0.5 + integrate.quad(integrand, 0, np.inf, limit=1000)[0] / math.pi

    return above(1 + eps) + 1 - above(1 - eps)


def _example_checks(rows: Sequence[Row]) -> list[Check]:
    checks = []
    for row in (row for row in rows if row["part"] == EXAMPLE):
        energies = EXAMPLES[row["layer"]] ** np.arange(EXAMPLE_WIDTH, dtype=float)
        exact = outside(energies, EXAMPLE_EPS)
        spread = 5 * math.sqrt(exact * (1 - exact) / row["trials"]) + 1e-6
        right = abs(row["observed"] - exact) <= spread
        right &= abs(row["printed"] - EXAMPLE_PRINTED) < 5e-5
        name = f"{EXAMPLE_WIDTH} {row['layer']}, eps {EXAMPLE_EPS}: draws agree with quadrature"
        told = f"P = {exact:.5f}, {row['observed']:.5f} of the draws, printed {row['printed']:.5f}"
        checks.append(Check(name, bool(right), told))
    return checks
