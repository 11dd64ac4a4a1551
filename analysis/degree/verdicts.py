"""Judging what was measured: verdicts by the rules, and checks of what must hold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from analysis.degree.measurements import FIXED, MATCHED, Settings
from analysis.fixtures import grid
from analysis.framework.rulebook import SIGNIFICANCE
from analysis.framework.rules import FAILS, HOLDS, NOT_TESTABLE, Verdict, effect, verdict
from analysis.framework.study import Check
from analysis.framework.tables import Row

ROUNDING = 1e-4  # of float32 kernels


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
