"""The paper's claims that one run can measure, each with a verdict by a written rule."""

from __future__ import annotations

from typing import Any

from ntk_propulsion import words
from ntk_propulsion.measurements import regime
from ntk_propulsion.propulsion import NEAR_ONE
from ntk_propulsion.report.answer import BOTH, CLOSE, at_start, could_leave, either, shape_error
from ntk_propulsion.words import interval, metric, number, percent

NEARLY_ALL = 0.99  # the share of z that must lie in the range: the paper shows no extremes

HOLDS, UP_TO_SCALE, FAILS = "holds", "holds up to a scale", "fails"
NOT_TESTABLE = "not testable here"


def claims(results: dict[str, Any]) -> list[dict[str, str]]:
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

    Returns:
        Rows with ``id, statement, measured, expected, verdict, source``.
    """
    return [
        _t1(results),
        *_regime(results),
        _t5(results),
        _a4(results),
        _e1(results),
    ]


def verdict_on(distances: list[words.Row | None]) -> str:
    """Return the verdict on "these kernels are equal", the worst over several distances."""
    verdicts = [_one_verdict(d) for d in distances] or [NOT_TESTABLE]
    order = (FAILS, NOT_TESTABLE, UP_TO_SCALE, HOLDS)
    return min(verdicts, key=order.index)


def _one_verdict(distance: words.Row | None) -> str:
    error = shape_error(distance)
    raw, _, raw_high = metric(distance, "relative_frobenius")
    if error is None:
        return NOT_TESTABLE
    if error[1] <= CLOSE:
        return HOLDS if raw is not None and either(raw_high, raw) <= CLOSE else UP_TO_SCALE
    return FAILS if error[0] > CLOSE else NOT_TESTABLE


def _measured(distances: list[tuple[str, words.Row | None]], verdict: str) -> str:
    text = "; ".join(
        f"{name}: CKA {interval(d, 'cka')}, best-scale error {interval(d, 'best_scale_error')}, "
        f"raw error {interval(d, 'relative_frobenius')}"
        for name, d in distances
        if d is not None
    )
    if text and verdict == NOT_TESTABLE:
        text += f"; an interval straddles the limit of {CLOSE}: draw more examples"
    return text or "not measured"


def _claim(
    name: str, statement: str, measured: str, expected: str, verdict: str, source: str
) -> dict[str, str]:
    return {
        "id": name,
        "statement": statement,
        "measured": measured,
        "expected": expected,
        "verdict": verdict,
        "source": source,
    }


def _t1(results: dict[str, Any]) -> dict[str, str]:
    pairs = [(words.PARTS[part], at_start(results, part)) for part in BOTH]
    verdict = verdict_on([d for _, d in pairs])
    return _claim(
        "T1",
        "With high probability the kernel of Propulsion approximates the kernel of full "
        "fine-tuning (here: one set of weights, one draw of examples).",
        _measured(pairs, verdict),
        f"K_P = K_F up to an error of {CLOSE}, with and without the head",
        verdict,
        "Theorem 1",
    )


def _t5(results: dict[str, Any]) -> dict[str, str]:
    distance = at_start(results, "all")
    verdict = verdict_on([distance])
    return _claim(
        "T5",
        "Heat maps of K_F and K_P closely resemble each other (the paper shows SST-2, RTE, CoLA "
        "and STS-B).",
        _measured([(f"{results['task']['name']}", distance)], verdict),
        f"an error of at most {CLOSE} (no scalar in the paper)",
        verdict,
        "App. B, Fig. 6",
    )


def _regime(results: dict[str, Any]) -> list[dict[str, str]]:
    """Return T3 and T4."""
    rows = words.rows(results.get("regimes"))
    both = [row for row in rows if row["method"] in ("full", "propulsion")]
    limit = f"at most {regime.HOLDS} for full fine-tuning and for Propulsion"
    t3 = _claim(
        "T3",
        "Linearization: the output's change is its first-order Taylor expansion.",
        _along(both, "linearization_error", "linearization"),
        f"|f_t - f_lin| / |f_t - f_0| {limit}",
        _level(both, "linearization"),
        "App. A",
    )
    if not both:
        return [t3, _t4(results)]
    t4 = _claim(
        "T4",
        "Fixed features: gradients after training are about those before.",
        _along(both, "feature_drift", "drift"),
        f"|J_t - J_0| / |J_0| {limit}",
        _level(both, "fixed_features"),
        "App. C",
    )
    return [t3, t4]


def _level(rows: list[words.Row], key: str) -> str:
    levels = {row[key] for row in rows}
    if levels & {"weakly", "not"}:
        return FAILS
    return HOLDS if levels == {"holds"} and len(rows) == 2 else NOT_TESTABLE


def _along(rows: list[words.Row], total: str, examples: str) -> str:
    found = "; ".join(
        f"{words.tuning(row['method'])} {number(row[total])} (examples "
        f"{number(row[f'{examples}_least'])} to {number(row[f'{examples}_most'])}) after "
        f"{row['step']} steps at {row['learning_rate']:g}"
        for row in rows
    )
    return found or "no trajectory was recorded"


def _t4(results: dict[str, Any]) -> dict[str, str]:
    pairs = [
        (words.tuning(m), words.row(results.get("drift"), method=m, tuning=m, part="all"))
        for m in ("full", "propulsion")
    ]
    pairs = [pair for pair in pairs if pair[1] is not None]
    verdict = verdict_on([d for _, d in pairs])
    return _claim(
        "T4",
        "Fixed features: gradients after training are about those before. Measured on each "
        "method's own kernel, which fixed features would leave in place (necessary, not "
        "sufficient).",
        _measured(pairs, verdict),
        f"a kernel that changes by at most {CLOSE}",
        verdict,
        "App. C",
    )


def _a4(results: dict[str, Any]) -> dict[str, str]:
    total = words.row(results.get("scaling_vectors"), module="total")
    run = words.row(results.get("training"), method="propulsion")
    measured, verdict = "no trained scaling vectors", NOT_TESTABLE
    if total is not None:
        share = words.finite(total["share_in_range"]) or 0.0
        measured = (
            f"{percent(share)} inside; z from {number(total['min'], 4)} to "
            f"{number(total['max'], 4)}"
        )
        if run is not None:
            measured += f" after {run['steps']} steps at learning rate {run['learning_rate']:g}"
        if share < NEARLY_ALL:
            verdict = FAILS
        elif could_leave(results):
            verdict = HOLDS
        else:
            measured += ", too few to leave the range"
    low, high = NEAR_ONE
    return _claim(
        "A4",
        f"After training z lies in [{low}, {high}].",
        measured,
        f"at least {percent(NEARLY_ALL)} inside",
        verdict,
        "App. F",
    )


def _e1(results: dict[str, Any]) -> dict[str, str]:
    sizes = {r["method"]: r["trainable_parameters"] for r in results.get("training") or ()}
    measured = "no training"
    if sizes.get("full") and sizes.get("propulsion"):
        measured = (
            f"{words.count(sizes['full'])} -> {words.count(sizes['propulsion'])} "
            f"({sizes['full'] / sizes['propulsion']:,.0f} times fewer) in "
            f"{results['model']['name']}"
        )
    return _claim(
        "E1",
        "355.3M parameters become 0.086M trainable ones.",
        measured,
        "about 4,100 times fewer; the paper's pair mixes RoBERTa-large's total with "
        "RoBERTa-base's trainables",
        NOT_TESTABLE,
        "abstract",
    )
