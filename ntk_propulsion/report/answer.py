"""The answer in words, by written rules: how close the kernels are and up to which scale."""

from __future__ import annotations

import math
from collections import defaultdict
from statistics import median
from typing import Any

from ntk_propulsion import words
from ntk_propulsion.propulsion import NEAR_ONE
from ntk_propulsion.words import interval, listed, metric, near_one, number, percent

# Every level is an upper limit on an error sqrt(1 - similarity²); its square is the share of
# K_F's squared norm that the best factor leaves unexplained.
NEARLY_EQUAL = 0.1  # 1% left over: heat maps that no eye tells apart
CLOSE = 0.3  # 9% left over: kernel methods with the two usually agree
RELATED = 0.6  # 36% left over: most of the shape is shared, a third is not
MATTERS = 0.005  # a module with less of K_F's trace cannot change the whole, so it isn't named
UNMOVED = 0.1  # a raw drift below this is a fixed kernel for every purpose of the theory
SAME_SCALE = (0.8, 1.25)  # best scales in here need no remark: the units agree to a quarter

LEVELS = (
    (NEARLY_EQUAL, "nearly the same"),
    (CLOSE, "close"),
    (RELATED, "related but not close"),
    (math.inf, "different"),
)
BOTH = ("all", "without_head")
START = {"point": "theta0", "part": "all"}


def error_of(similarity: float) -> float:
    """Return sqrt(1 - similarity²), the best-scale error that a similarity amounts to."""
    return math.sqrt(max(0.0, 1 - min(1.0, max(0.0, similarity)) ** 2))


def shape_error(distance: words.Row | None) -> tuple[float, float] | None:
    """Return the scale-free error of a distance at its interval's ends.

    It is the worse of the best-scale error and the error that the CKA amounts to: alignment alone
    flatters kernels whose entries share a constant.

    Args:
        distance: A row with ``metrics``.

    Returns:
        ``(favourable, unfavourable)``, equal where there is no interval; None when neither number
        was measured.
    """
    ends = []
    value, low, high = metric(distance, "best_scale_error")
    if value is not None:
        ends.append((either(low, value), either(high, value)))
    value, low, high = metric(distance, "cka")
    if value is not None:
        ends.append((error_of(either(high, value)), error_of(either(low, value))))
    return (max(e[0] for e in ends), max(e[1] for e in ends)) if ends else None


def level(error: float) -> str:
    """Return the word for an error, by the limits above."""
    return next(word for limit, word in LEVELS if error <= limit)


def either(value: float | None, otherwise: float) -> float:
    """Return a number, or another where there is none."""
    return otherwise if value is None else value


def at_start(results: dict[str, Any], part: str, tuning: str = "propulsion") -> words.Row | None:
    """Return the distance of a tuning's kernel from full fine-tuning's before training."""
    return words.row(
        results["distances"], point="theta0", tuning=tuning, reference="full", part=part
    )


def could_leave(results: dict[str, Any]) -> bool:
    """Tell whether training could move z out of the paper's range at all.

    A step of Adam moves a parameter by about the learning rate, so steps times rate bounds z - 1.
    """
    run = words.row(results.get("training"), method="propulsion")
    if run is None:
        return False
    return run["steps"] * run["learning_rate"] > NEAR_ONE[1] - 1


def answer(results: dict[str, Any]) -> list[str]:
    """Say in a few short paragraphs what an experiment found.

    Words of closeness go by the unfavourable end of each interval, so they never say more than
    was measured.

    Args:
        results: The experiment's results.

    Returns:
        The paragraphs: closeness in words, its numbers, scale, where not, training, scaling
        vectors, other tunings; what was not measured is left out.
    """
    parts = (_closeness, _numbers, _scale, _where_not, _training, _scaling, _controls)
    return [sentence for part in parts if (sentence := part(results))]


def _closeness(results: dict[str, Any]) -> str:
    errors = {part: shape_error(at_start(results, part)) for part in BOTH}
    found = {part: level(e[1]) for part, e in errors.items() if e is not None}
    if not found:
        return "The run measured no distance between the two kernels."
    word = next(iter(found.values()))
    if len(found) < 2:
        said = f"{word}, {words.PARTS[next(iter(found))]}."
    elif found["all"] == found["without_head"]:
        said = f"{word}, with and without the head."
    else:
        said = f"{word} as a whole; without the head, they are {found['without_head']}."
    return (
        "Before training and up to one scale factor, the kernels of Propulsion and of full "
        f"fine-tuning are {said}"
    )


def _numbers(results: dict[str, Any]) -> str:
    shown = ("cka", "alignment", "best_scale_error", "unbiased_cka")
    told = []
    for part in BOTH:
        distance = at_start(results, part)
        numbers = [
            f"{words.metric_label(name)} {interval(distance, name)}"
            for name in shown
            if metric(distance, name)[0] is not None
        ]
        if numbers:
            told.append(f"{words.PARTS[part]}: {', '.join(numbers)}")
    return f"In numbers, {'; '.join(told)}." if told else ""


def _scale(results: dict[str, Any]) -> str:
    distance = at_start(results, "all")
    scale = metric(distance, "best_scale")[0]
    if scale is None or scale <= 0:
        return ""
    raw = interval(distance, "relative_frobenius")
    factor = interval(distance, "best_scale")
    if SAME_SCALE[0] <= scale <= SAME_SCALE[1]:
        return (
            f"Their scales agree to within a quarter (best factor {factor}), so the raw error "
            f"|K_F - K_P|/|K_F| of {raw} can be read as it stands."
        )
    full, propulsion = (
        words.finite((words.row(results["kernels"], tuning=t, **START) or {}).get("trace"))
        for t in ("full", "propulsion")
    )
    ratio = f" (tr K_F / tr K_P = {number(full / propulsion)})" if full and propulsion else ""
    size = "smaller" if scale > 1 else "larger"
    return (
        f"K_P is {size} than K_F and comes nearest to it after multiplication by {factor}{ratio}; "
        f"the raw error |K_F - K_P|/|K_F| of {raw} says little, because two kernels of the very "
        f"same shape that far apart in scale already give {number(abs(1 - 1 / scale))}."
    )


def _where_not(results: dict[str, Any]) -> str:
    modules = words.rows(results["per_module"], point="theta0")
    scaled, missed, by_role = [], 0.0, defaultdict(list)
    for m in modules:
        share = words.finite(m.get("trace_share_full")) or 0.0
        alignment = words.finite(m.get("alignment"))
        if alignment is None or not words.finite(m.get("trace_share_propulsion")):
            missed += share
        elif share >= MATTERS:
            scaled.append((alignment, str(m["module"])))
            by_role[str(m["role"])].append(alignment)
    if not scaled:
        return ""
    worst = [f"{name} ({near_one(a)})" for a, name in sorted(scaled)[:3]]
    medians = {role: median(values) for role, values in by_role.items()}
    role = min(medians, key=lambda r: medians[r])
    names = "module" if len(worst) == 1 else "modules"
    text = f"Alignment is lowest in the {names} {listed(worst)}"
    if len(medians) > 1:
        text += (
            f"; by role in {role.replace('_', ' ')} (median {near_one(medians[role])}, "
            f"all modules {near_one(median(a for a, _ in scaled))})"
        )
    if missed > MATTERS:
        text += f"; {percent(missed)} of K_F's trace lies in modules that Propulsion doesn't scale"
    return text + "."


def _training(results: dict[str, Any]) -> str:
    metric_name = str(results["task"].get("metric") or "the metric")
    told = []
    for run in results.get("training") or ():
        method = run["method"]
        drift = words.row(results.get("drift"), method=method, tuning=method, part="all")
        before, after = (number(run.get(k)) for k in ("metric_before", "metric_after"))
        text = (
            f"{run['steps']} steps of {words.tuning(method)} took {metric_name} from {before} "
            f"to {after}"
        )
        value, _, high = metric(drift, "relative_frobenius")
        if value is not None:
            moved = (
                "left its own kernel in place"
                if either(high, value) <= UNMOVED
                else "moved its own kernel"
            )
            text += (
                f" and {moved} (raw change {interval(drift, 'relative_frobenius')}, CKA "
                f"{interval(drift, 'cka')})"
            )
        told.append(text)
    return "; ".join(told) + "." if told else ""


def _scaling(results: dict[str, Any]) -> str:
    total = words.row(results.get("scaling_vectors"), module="total")
    if total is None:
        return ""
    share = words.finite(total["share_in_range"]) or 0.0
    low, high = NEAR_ONE
    text = (
        f"After training {percent(share)} of the {words.count(total['n'])} scaling factors lie in "
        f"the paper's [{low}, {high}] (from {number(total['min'], 4)} to "
        f"{number(total['max'], 4)}), which are gains z**k from {number(total['gain_min'])} to "
        f"{number(total['gain_max'])}"
    )
    if not could_leave(results):
        text += "; training was too short for them to leave it"
    return text + "."


def _controls(results: dict[str, Any]) -> str:
    for part in reversed(BOTH):
        others = [
            (metric(d, "cka")[0], str(d["tuning"]))
            for d in words.rows(results["distances"], point="theta0", reference="full", part=part)
        ]
        ranked = sorted(((c, t) for c, t in others if c is not None), reverse=True)
        if len(ranked) > 1:
            listing = ", ".join(f"{words.tuning(t)} {near_one(c)}" for c, t in ranked)
            return f"CKA with K_F of every tuning, {words.PARTS[part]}: {listing}."
    return ""
