"""How numbers become verdicts: what the rules of `analysis.framework.rulebook` compute.

A rule takes measurements with their intervals and returns one of four verdicts. What an interval
cannot decide is "not testable here", never a pass.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from analysis.framework.rulebook import RULES, SIGNIFICANCE
from ntk_propulsion.report.answer import CLOSE
from ntk_propulsion.report.claims import FAILS, HOLDS, NOT_TESTABLE, UP_TO_SCALE

__all__ = [
    "FAILS",
    "HOLDS",
    "NOT_TESTABLE",
    "UP_TO_SCALE",
    "Estimate",
    "Verdict",
    "all_ahead",
    "effect",
    "equality",
    "exceeds",
    "log_slope",
    "paired",
    "predicts",
    "rank_correlation",
    "verdict",
    "within",
    "worst",
]
ROUNDING = 1e-20


@dataclass(frozen=True)
class Verdict:
    """A verdict by a rule.

    Attributes:
        id: The rule's.
        statement: The claim in brief.
        source: Where the paper has it.
        rule: What was decided before.
        verdict: holds; holds up to a scale; fails; not testable here.
        measured: The numbers, with intervals.
        about: Model, data, N, seeds and outputs.
    """

    id: str
    statement: str
    source: str
    rule: str
    verdict: str
    measured: str
    about: str


@dataclass(frozen=True)
class Estimate:
    """A number with the interval that it lies in."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def verdict(id: str, outcome: str, measured: str, about: str) -> Verdict:
    """Return the verdict of a rule, with what it says."""
    rule = RULES[id]
    return Verdict(id, rule.statement, rule.source, rule.rule, outcome, measured, about)


def worst(outcomes: Sequence[str]) -> str:
    """Return the worst of several verdicts; none at all is not testable.

    Examples:
        >>> worst([HOLDS, NOT_TESTABLE, UP_TO_SCALE])
        'not testable here'
    """
    order = (FAILS, NOT_TESTABLE, UP_TO_SCALE, HOLDS)
    return min(outcomes, key=order.index, default=NOT_TESTABLE)


def equality(raw: Estimate, shape: Estimate) -> str:
    """Judge that two kernels are equal by their raw and their best-scale error."""
    if shape.high <= CLOSE:
        return HOLDS if raw.high <= CLOSE else UP_TO_SCALE
    return FAILS if shape.low > CLOSE else NOT_TESTABLE


def paired(differences: Sequence[float], comparisons: int = 1) -> Estimate:
    """Return the mean of paired differences with its 95% t-interval, Bonferroni-corrected.

    One pair has no interval: it is infinite.
    """
    values = np.asarray(differences, dtype=float)
    mean = float(values.mean())
    if len(values) < 2:
        return Estimate(mean, -math.inf, math.inf)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(1 - SIGNIFICANCE / comparisons)
    return Estimate(mean, float(low), float(high))


def log_slope(by_seed: Mapping[int, Mapping[int, float]]) -> Estimate:
    """Return the mean slope of log y on log x, a regression a seed, with its t-interval.

    Args:
        by_seed: y by x, of each seed.
    """
    return paired(
        [
            float(np.polyfit(np.log(list(curve)), np.log(list(curve.values())), 1)[0])
            for curve in by_seed.values()
        ]
    )


def all_ahead(differences: Mapping[str, Estimate]) -> str:
    """Judge that every difference is positive: A2, A3 and A5's rule."""
    found = differences.values()
    if any(d.high < 0 for d in found):
        return FAILS
    ahead = found and all(d.value > 0 for d in found) and any(d.low > 0 for d in found)
    return HOLDS if ahead else NOT_TESTABLE


def within(differences: Mapping[str, Estimate], margin: float, *, upper_only: bool = False) -> str:
    """Judge that every difference lies within a margin: an equivalence test by intervals."""
    found = list(differences.values())
    outside = [d.low > margin or (not upper_only and d.high < -margin) for d in found]
    if any(outside):
        return FAILS
    inside = all(-margin <= d.low and d.high <= margin for d in found)
    return HOLDS if found and inside else NOT_TESTABLE


def effect(values: np.ndarray) -> float:
    """Return the p-value of an effect of the columns, rows (seeds) as blocks.

    Two-way analysis of variance without interaction. NaN where it is not defined: too few values,
    or levels that differ by the very same amounts at every seed (coarse scores do), whose F is
    infinite for no reason.

    Args:
        values: (seeds, levels).
    """
    rows, columns = values.shape
    if rows < 2 or columns < 2:
        return math.nan
    total = values.mean()
    of_columns = rows * np.sum((values.mean(axis=0) - total) ** 2)
    residual = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + total
    freedom = (rows - 1) * (columns - 1)
    rest = np.sum(residual**2) / freedom
    if rest <= ROUNDING * np.var(values):
        return math.nan
    return float(stats.f.sf(of_columns / (columns - 1) / rest, columns - 1, freedom))


def exceeds(failures: int, trials: int, bound: float, cells: int) -> bool:
    """Tell whether the whole exact 95% interval of a failure rate lies above a bound.

    Clopper and Pearson's, Bonferroni over the cells of a table; a bound of 1 allows everything.
    """
    if bound >= 1:
        return False
    interval = stats.binomtest(failures, trials).proportion_ci(1 - SIGNIFICANCE / cells, "exact")
    return bool(interval.low > bound)


def rank_correlation(
    x: Sequence[float], y: Sequence[float], *, resamples: int = 2000, seed: int = 0
) -> Estimate:
    """Return Spearman's correlation with a 95% bootstrap interval over points.

    Values that agree to four digits of the largest count as equal: float32 kernels have no more.
    Fewer than 4 points, or constant values, leave it undefined: NaN.
    """
    a, b = (np.round(v / np.abs(v).max(), 4) for v in (np.array(x), np.array(y)))
    if len(a) < 4 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return Estimate(math.nan, math.nan, math.nan)

    def correlation(x: np.ndarray, y: np.ndarray) -> float:
        constant = np.ptp(x) == 0 or np.ptp(y) == 0  # as some resamples are
        return math.nan if constant else float(stats.spearmanr(x, y).statistic)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # those resamples are left out
        drawn = stats.bootstrap(
            (a, b),
            correlation,
            paired=True,
            vectorized=False,
            n_resamples=resamples,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
    low, high = np.nanpercentile(drawn.bootstrap_distribution, [2.5, 97.5])
    return Estimate(correlation(a, b), float(low), float(high))


def predicts(correlation: Estimate) -> str:
    """Judge that a larger distance goes with a smaller metric: D1's rule."""
    if math.isnan(correlation.value):
        return NOT_TESTABLE
    if correlation.high < 0:
        return HOLDS
    return FAILS if correlation.low > -0.3 else NOT_TESTABLE
