"""The paper's claims that one run can measure, each with a verdict by a written rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ntk_propulsion import words
from ntk_propulsion.experiment.results import Results
from ntk_propulsion.measurements import regime
from ntk_propulsion.propulsion import NEAR_ONE
from ntk_propulsion.report.answer import (
    BOTH,
    CLOSE,
    all_scaling,
    at_start,
    could_leave,
    either,
    own_drift,
    run_of,
    shape_error,
    value_of,
)
from ntk_propulsion.theory.estimate import Estimates
from ntk_propulsion.trajectories.tables import RegimeSummary
from ntk_propulsion.words import estimate, number, percent

NEARLY_ALL = 0.99  # the share of z that must lie in the range: the paper shows no extremes

HOLDS, UP_TO_SCALE, FAILS = "holds", "holds up to a scale", "fails"
NOT_TESTABLE = "not testable here"

Named = Sequence[tuple[str, Estimates]]
"""Distances between kernels, each set with a name for people."""


@dataclass(frozen=True)
class Claim:
    """A claim of the paper and what one run says of it.

    Attributes:
        id: Its short name.
        statement: What the paper says.
        measured: What the run found.
        expected: The rule: what must be found for the claim to hold.
        verdict: ``"holds"``, ``"holds up to a scale"``, ``"fails"`` or ``"not testable here"``.
        source: Where the paper says it.
    """

    id: str
    statement: str
    measured: str
    expected: str
    verdict: str
    source: str


def claims(results: Results) -> list[Claim]:
    """Return the paper's claims that one run can measure, each with a verdict by a written rule.

    T1 and T5 hold when the raw error, at the unfavourable end of its interval, is at most
    ``CLOSE``; up to a scale when the shape error is; they fail when even the favourable end is
    above it; otherwise the interval decides nothing and the claim is not testable here. T1 must
    pass with and without the head. T3 and T4 hold when linearization error and feature drift of
    both trainings are within `regime.HOLDS`; without recorded trajectories T3 is not testable, and
    T4 goes by the drift of each method's own kernel as T1 does. A4 holds when ``NEARLY_ALL`` of z
    lie in the range, and is not testable where training could not have left it.

    Args:
        results: The experiment's results.
    """
    return [
        _t1(results),
        _t3(results),
        _t4(results),
        _t5(results),
        _a4(results),
        _e1(results),
    ]


def verdict_on(distances: Sequence[Estimates]) -> str:
    """Return the verdict on "these kernels are equal", the worst over several distances."""
    verdicts = [_one_verdict(metrics) for metrics in distances] or [NOT_TESTABLE]
    order = (FAILS, NOT_TESTABLE, UP_TO_SCALE, HOLDS)
    return min(verdicts, key=order.index)


def _one_verdict(metrics: Estimates) -> str:
    error = shape_error(metrics)
    raw = value_of(metrics, "relative_frobenius")
    if error is None:
        return NOT_TESTABLE
    if error[1] <= CLOSE:
        same_scale = raw is not None and either(metrics["relative_frobenius"].high, raw) <= CLOSE
        return HOLDS if same_scale else UP_TO_SCALE
    return FAILS if error[0] > CLOSE else NOT_TESTABLE


def _measured(distances: Named, verdict: str) -> str:
    shown = {
        "CKA": "cka",
        "best-scale error": "best_scale_error",
        "raw error": "relative_frobenius",
    }
    text = "; ".join(
        f"{name}: "
        + ", ".join(f"{said} {estimate(key, metrics.get(key))}" for said, key in shown.items())
        for name, metrics in distances
        if metrics
    )
    if text and verdict == NOT_TESTABLE:
        text += f"; an interval straddles the limit of {CLOSE}: draw more examples"
    return text or "not measured"


def _start(results: Results, part: str) -> Estimates:
    distance = at_start(results, part)
    return distance.metrics if distance else {}


def _t1(results: Results) -> Claim:
    pairs = [(words.PARTS[part], _start(results, part)) for part in BOTH]
    verdict = verdict_on([metrics for _, metrics in pairs])
    return Claim(
        id="T1",
        statement="With high probability the kernel of Propulsion approximates the kernel of full "
        "fine-tuning (here: one set of weights, one draw of examples).",
        measured=_measured(pairs, verdict),
        expected=f"K_P = K_F up to an error of {CLOSE}, with and without the head",
        verdict=verdict,
        source="Theorem 1",
    )


def _t5(results: Results) -> Claim:
    metrics = _start(results, "all")
    verdict = verdict_on([metrics])
    return Claim(
        id="T5",
        statement="Heat maps of K_F and K_P closely resemble each other (the paper shows SST-2, "
        "RTE, CoLA and STS-B).",
        measured=_measured([(results.task.name, metrics)], verdict),
        expected=f"an error of at most {CLOSE} (no scalar in the paper)",
        verdict=verdict,
        source="App. B, Fig. 6",
    )


LIMIT = f"at most {regime.HOLDS} for full fine-tuning and for Propulsion"


def _t3(results: Results) -> Claim:
    both = _recorded(results)
    return Claim(
        id="T3",
        statement="Linearization: the output's change is its first-order Taylor expansion.",
        measured=_along(
            both,
            lambda r: (r.linearization_error, r.linearization_least, r.linearization_most),
        ),
        expected=f"|f_t - f_lin| / |f_t - f_0| {LIMIT}",
        verdict=_level([each.linearization for each in both]),
        source="App. A",
    )


def _t4(results: Results) -> Claim:
    both = _recorded(results)
    if not both:
        return _t4_by_drift(results)
    return Claim(
        id="T4",
        statement="Fixed features: gradients after training are about those before.",
        measured=_along(both, lambda r: (r.feature_drift, r.drift_least, r.drift_most)),
        expected=f"|J_t - J_0| / |J_0| {LIMIT}",
        verdict=_level([each.fixed_features for each in both]),
        source="App. C",
    )


def _recorded(results: Results) -> list[RegimeSummary]:
    return [row for row in results.regimes if row.method in ("full", "propulsion")]


def _level(levels: Sequence[str]) -> str:
    if {"weakly", "not"} & {*levels}:
        return FAILS
    return HOLDS if {*levels} == {"holds"} and len(levels) == 2 else NOT_TESTABLE


def _along(
    recorded: Sequence[RegimeSummary],
    numbers: Callable[[RegimeSummary], tuple[float | None, float | None, float | None]],
) -> str:
    """Say a measure of each training: of all examples, and its least and most of an example."""
    said = []
    for each in recorded:
        total, least, most = map(number, numbers(each))
        said.append(
            f"{words.tuning(each.method)} {total} (examples {least} to {most}) after "
            f"{each.step} steps at {each.learning_rate:g}"
        )
    return "; ".join(said) or "no trajectory was recorded"


def _t4_by_drift(results: Results) -> Claim:
    drifts = [(m, own_drift(results, m)) for m in ("full", "propulsion")]
    pairs = [(words.tuning(m), drift.metrics) for m, drift in drifts if drift is not None]
    verdict = verdict_on([metrics for _, metrics in pairs])
    return Claim(
        id="T4",
        statement="Fixed features: gradients after training are about those before. Measured on "
        "each method's own kernel, which fixed features would leave in place (necessary, not "
        "sufficient).",
        measured=_measured(pairs, verdict),
        expected=f"a kernel that changes by at most {CLOSE}",
        verdict=verdict,
        source="App. C",
    )


def _a4(results: Results) -> Claim:
    total, run = all_scaling(results), run_of(results, "propulsion")
    measured, verdict = "no trained scaling vectors", NOT_TESTABLE
    if total is not None:
        share = words.finite(total.share_in_range) or 0.0
        measured = f"{percent(share)} inside; z from {number(total.min, 4)} to "
        measured += number(total.max, 4)
        if run is not None:
            measured += f" after {run.steps} steps at learning rate {run.learning_rate:g}"
        if share < NEARLY_ALL:
            verdict = FAILS
        elif could_leave(results):
            verdict = HOLDS
        else:
            measured += ", too few to leave the range"
    low, high = NEAR_ONE
    return Claim(
        id="A4",
        statement=f"After training z lies in [{low}, {high}].",
        measured=measured,
        expected=f"at least {percent(NEARLY_ALL)} inside",
        verdict=verdict,
        source="App. F",
    )


def _e1(results: Results) -> Claim:
    full, propulsion = (run_of(results, method) for method in ("full", "propulsion"))
    measured = "no training"
    if full and propulsion and propulsion.trainable_parameters:
        many, few = full.trainable_parameters, propulsion.trainable_parameters
        measured = (
            f"{words.count(many)} -> {words.count(few)} ({many / few:,.0f} times fewer) in "
            f"{results.model.name}"
        )
    return Claim(
        id="E1",
        statement="355.3M parameters become 0.086M trainable ones.",
        measured=measured,
        expected="about 4,100 times fewer; the paper's pair mixes RoBERTa-large's total with "
        "RoBERTa-base's trainables",
        verdict=NOT_TESTABLE,
        source="abstract",
    )
