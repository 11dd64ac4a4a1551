"""The rules by which numbers become verdicts, written before any full run of the studies.

A rule takes measurements with their intervals and returns one of four verdicts. What an interval
cannot decide is "not testable here", never a pass. Thresholds come from `ntk_propulsion.report`
(``CLOSE``: at most 9% of K_F's squared norm left unexplained) or stand here with their reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ntk_propulsion.report.answer import CLOSE
from ntk_propulsion.report.claims import FAILS, HOLDS, NOT_TESTABLE, UP_TO_SCALE

SIGNIFICANCE = 0.05
ROUNDING = 1e-20
EQUIVALENT = 0.02  # two points of accuracy: about what the paper's "holds" leaves room for


@dataclass(frozen=True)
class Rule:
    """A claim and the rule that judges it.

    Attributes:
        id: The claim's id; a letter behind it marks one of its parts.
        statement: The claim in brief.
        source: Where the paper has it; "ours" for questions that the paper does not answer.
        study: Whose numbers judge it.
        rule: When it holds, when it fails.
    """

    id: str
    statement: str
    source: str
    study: str
    rule: str


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


_CHAMPION = (
    "Over seeds, paired: {champion} minus each other. Holds if it is ahead of every other on "
    "average and its 95% t-interval (Bonferroni over the others) excludes 0 for at least one; "
    "fails if any other is ahead by an interval that excludes 0; otherwise not testable here."
)
_BOUND = (
    "Holds if no cell's failures exceed the bound: the lower end of the exact binomial interval "
    "(level 95%, Bonferroni over cells) of the failure rate is at most the bound wherever that is "
    "below 1 (elsewhere it is vacuous); fails otherwise; not testable if it is vacuous everywhere."
)
RULES = {
    rule.id: rule
    for rule in (
        Rule(
            "T1",
            "K_P approximates K_F in the NTK regime",
            "Theorem 1",
            "theorem",
            f"Per task, at theta_0, with and without the head: holds if the raw relative error is "
            f"at most {CLOSE} at the upper end of its interval; up to a scale if the best-scale "
            f"error is; fails if even the lower end is above {CLOSE}. The claim gets the worst "
            "verdict of all tasks and parts.",
        ),
        Rule(
            "T1b",
            "Propulsion's kernel is closer to full fine-tuning's than a random subset of as many "
            "parameters is (a control of ours)",
            "ours",
            "theorem",
            "Without the head, per task: unbiased CKA of Propulsion minus the mean over random "
            "subsets, 95% bootstrap over examples, paired. Holds if the interval lies above 0 on "
            "every task; fails if it lies below 0 on any; otherwise not testable here.",
        ),
        Rule(
            "T1c",
            "Of the steps from K_F to K_P, the random projection (the paper's argument) is the one "
            "that matters (a question of ours)",
            "ours",
            "theorem",
            "Error budget without the head: holds if on every task the angle of the step "
            "'sampling' is the largest of the four; fails if another is larger on every task; "
            "otherwise not testable here.",
        ),
        Rule(
            "T3",
            "Linearization: the output's change is its first-order Taylor expansion",
            "App. A",
            "regime",
            "Linearization error |f_t - f_lin| / |f_t - f_0| after training, 95% bootstrap over "
            "examples: holds if every interval (full fine-tuning and Propulsion, every task) ends "
            "at 0.1 or below (ntk_propulsion.regime); fails if any lies wholly above; otherwise "
            "not testable here.",
        ),
        Rule(
            "T4",
            "Fixed features: the gradient at step t is about the gradient at step 0",
            "App. C",
            "regime",
            "As T3, with the feature drift |J_t - J_0| / |J_0| of what each method trains.",
        ),
        Rule(
            "T5",
            "Heat maps of K_F, K_P and abs(K_F - K_P) closely resemble each other",
            "App. B, Fig. 6",
            "theorem",
            "As T1, with the head only, as in the paper: what an eye sees on one colour scale is "
            "the raw error, on two scales the best-scale error. The worst verdict of all tasks.",
        ),
        Rule(
            "T2a",
            "Johnson-Lindenstrauss bound 1 - 4 exp(-(eps^2 - eps^3) d/4) for Gaussian weights "
            "(inequality read as: the error is at most eps |x||y|)",
            "Theorem 1, App. A",
            "bounds",
            _BOUND + " Cells: width x eps, Gaussian rows of variance 1/d, fixed pairs.",
        ),
        Rule(
            "T2b",
            "The same bound for the pretrained weights and their inputs",
            "Theorem 1, App. A",
            "bounds",
            "Holds if in every scaled linear layer, at every eps where the bound is below 1, the "
            "share of pairs outside eps is at most the bound; fails if in any layer it is not. "
            "(One weight: the pairs are not independent, so no interval.)",
        ),
        Rule(
            "T2c",
            "The same exponent, with d the number of output neurons, for Propulsion's own "
            "projection of the gradients (Gaussian weights at the model's real inputs and "
            "cotangents)",
            "App. A, as used in the proof",
            "bounds",
            _BOUND + " Cells: layer x eps, failures over redraws of the weights and diagonal "
            "entries; the binomial counts redraws (entries of one redraw are not independent).",
        ),
        Rule(
            "T2d",
            "The bound with Gamma2 and GammaInf in place of d (ours), where its assumptions hold: "
            "Gaussian weights",
            "ours",
            "bounds",
            _BOUND + " Cells as for T2c.",
        ),
        Rule(
            "T2e",
            "The bound with Gamma2 for the pretrained weights, where its assumptions need not hold",
            "ours",
            "bounds",
            "As T2b: share of diagonal entries outside eps at most the mean bound, in every layer.",
        ),
        Rule(
            "W1",
            "K_P approaches K_F, up to a scale, as width grows at random initialisation",
            "Theorem 1, read as a limit",
            "width",
            "Slope of log(best-scale error) on log(width), 95% t-interval over seeds: holds (up to "
            "a scale) if the whole interval lies below 0 and the error at the largest width is at "
            f"most {CLOSE}; fails if the interval contains 0 or lies above it, or if the error at "
            "the largest width is above it at the lower end of its own interval.",
        ),
        Rule(
            "A1a",
            "Accuracy depends on the degree, with a best value inside the range",
            "Sec. 4.5, Fig. 5",
            "degree",
            f"Learning rate fixed, analysis of variance over degrees (seeds as blocks) at "
            f"{SIGNIFICANCE}: holds if it is significant and the best mean is at neither end of "
            "the range; fails if it is significant and the best is at an end; otherwise not "
            "testable here.",
        ),
        Rule(
            "A1b",
            "The effect of the degree is more than a step size (a question of ours)",
            "ours",
            "degree",
            "The same analysis with the learning rate matched (lr / k under Adam): holds if it is "
            "significant; fails if the spread over degrees is smaller than with the rate fixed at "
            f"{SIGNIFICANCE} (F-test on the variances of the means); otherwise not testable here.",
        ),
        Rule(
            "A2",
            "Position: all layers best; Q, K and V together better than each; embedding lowest",
            "Table 5",
            "position",
            "Over seeds, paired, 95% t-intervals (Bonferroni over the comparisons named): holds if "
            "every named difference is positive on average and one interval at least excludes 0; "
            "fails if any interval lies below 0; otherwise not testable here.",
        ),
        Rule(
            "A3",
            "Initialising z at 1 is best",
            "App. F",
            "initialisation",
            _CHAMPION.format(champion="z = 1"),
        ),
        Rule(
            "A5",
            "Average pooling is the best pooling, by up to 1.06 points",
            "App. F, Fig. 11",
            "pooling",
            _CHAMPION.format(champion="average pooling (mean over numbers of vectors)"),
        ),
        Rule(
            "A6",
            "Accuracy holds across the number of Propulsion layers",
            "App. F",
            "layers",
            f"Metric with all layers minus metric with fewer, over seeds, paired 95% t-interval "
            f"(Bonferroni): holds if every interval lies within +-{EQUIVALENT}; fails if any lies "
            "wholly outside; otherwise not testable here.",
        ),
        Rule(
            "D1",
            "Kernel distance predicts the task metric across configurations (a question of ours)",
            "ours",
            "initialisation, position, layers, pooling",
            "Spearman correlation of best-scale error (without head, at the start) with the "
            "metric, both averaged over seeds; 95% bootstrap over configurations: holds if the "
            "interval lies below 0; fails if it lies above -0.3; otherwise not testable here. "
            "Distances that agree to four digits count as equal.",
        ),
        Rule(
            "A4",
            "After training z lies in [0.98, 1.02]",
            "App. F",
            "regime",
            "Holds if at least 99% of z lie there on every task; fails otherwise; not testable "
            "here if Adam's learning rates add up to less than 0.04, twice the way out.",
        ),
        Rule(
            "E1",
            "355.3M parameters become 0.086M trainable ones",
            "abstract",
            "parameters",
            "Holds if the two numbers are those of one model (RoBERTa-base or RoBERTa-large, 2 "
            "labels, every layer scaled), within 0.1M and to the digits printed; fails otherwise.",
        ),
        Rule(
            "O1",
            "K_P is as close to K_F from other initialisations of z as from z = 1 (the paper's "
            "open question, as a hypothesis of ours)",
            "limitations",
            "initialisation",
            "Unbiased CKA of K_P with K_F, without head, at z = 1 minus at the other start, paired "
            "over seeds, 95% t-interval (Bonferroni): holds if none excludes 0; fails if any lies "
            "above 0.",
        ),
        Rule(
            "O3",
            "K_P stays as close to K_F under domain shift (the paper's open question, as a "
            "hypothesis of ours)",
            "limitations",
            "shift",
            "Kernel regression from the source domain: drop of held-out accuracy from source to "
            "each other domain under K_P minus that under K_F, 95% bootstrap over test examples: "
            f"holds if every interval lies within +-{5 / 100}; fails if any lies wholly above "
            f"{5 / 100}; otherwise not testable here. (Five points: the half-width that a few "
            "hundred test examples can resolve.)",
        ),
    )
}


def verdict(id: str, outcome: str, measured: str, about: str) -> Verdict:
    """Return the verdict of a rule, with what it says."""
    rule = RULES[id]
    return Verdict(id, rule.statement, rule.source, rule.rule, outcome, measured, about)


def worst(outcomes: Sequence[str]) -> str:
    """Return the worst of several verdicts; none at all is not testable."""
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
    tail = SIGNIFICANCE / (2 * comparisons)
    reach = float(stats.t.ppf(1 - tail, len(values) - 1)) * values.std(ddof=1) / len(values) ** 0.5
    return Estimate(mean, mean - reach, mean + reach)


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
    return float(stats.binom.sf(failures - 1, trials, bound)) < SIGNIFICANCE / (2 * cells)


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
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(resamples):
        pick = rng.integers(len(a), size=len(a))
        if np.ptp(a[pick]) > 0 and np.ptp(b[pick]) > 0:
            drawn.append(stats.spearmanr(a[pick], b[pick]).statistic)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Estimate(float(stats.spearmanr(a, b).statistic), float(low), float(high))


def predicts(correlation: Estimate) -> str:
    """Judge that a larger distance goes with a smaller metric: D1's rule."""
    if math.isnan(correlation.value):
        return NOT_TESTABLE
    if correlation.high < 0:
        return HOLDS
    return FAILS if correlation.low > -0.3 else NOT_TESTABLE
