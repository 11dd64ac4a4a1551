"""The answer in words, by written rules: how close the kernels are and up to which scale."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from ntk_propulsion import words
from ntk_propulsion.experiment.results import Results, TrainingRun
from ntk_propulsion.measurements.tables import KernelDistance, KernelDrift, ScalingSummary
from ntk_propulsion.propulsion import NEAR_ONE, TOTAL
from ntk_propulsion.theory.estimate import Estimate, Estimates
from ntk_propulsion.words import estimate, listed, near_one, number, percent

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


def error_of(similarity: float) -> float:
    """Return sqrt(1 - similarity²), the best-scale error that a similarity amounts to."""
    return math.sqrt(max(0.0, 1 - min(1.0, max(0.0, similarity)) ** 2))


def shape_error(metrics: Estimates) -> tuple[float, float] | None:
    """Return the scale-free error of a distance at its interval's ends.

    It is the worse of the best-scale error and the error that the CKA amounts to: alignment alone
    flatters kernels whose entries share a constant.

    Args:
        metrics: The distances between two kernels.

    Returns:
        ``(favourable, unfavourable)``, equal where there is no interval; None when neither number
        was measured.
    """
    ends = []
    if (error := _ends(metrics.get("best_scale_error"))) is not None:
        ends.append(error)
    if (cka := _ends(metrics.get("cka"))) is not None:
        ends.append((error_of(cka[1]), error_of(cka[0])))
    return (max(e[0] for e in ends), max(e[1] for e in ends)) if ends else None


def _ends(measured: Estimate | None) -> tuple[float, float] | None:
    if measured is None or (value := words.finite(measured.value)) is None:
        return None
    return either(measured.low, value), either(measured.high, value)


def level(error: float) -> str:
    """Return the word for an error, by the limits above."""
    return next(word for limit, word in LEVELS if error <= limit)


def either(value: float | None, otherwise: float) -> float:
    """Return a finite number, or another where there is none."""
    finite = words.finite(value)
    return otherwise if finite is None else finite


def value_of(metrics: Estimates, name: str) -> float | None:
    """Return a distance's finite value, or None."""
    return words.finite(metrics[name].value) if name in metrics else None


def at_start(results: Results, part: str, tuning: str = "propulsion") -> KernelDistance | None:
    """Return the distance of a tuning's kernel from full fine-tuning's before training."""
    wanted = ("theta0", tuning, "full", part)
    found = (d for d in results.distances if (d.point, d.tuning, d.reference, d.part) == wanted)
    return next(found, None)


def run_of(results: Results, method: str) -> TrainingRun | None:
    """Return how a fine-tuning went, None where there was none."""
    return next((run for run in results.training if run.method == method), None)


def own_drift(results: Results, method: str) -> KernelDrift | None:
    """Return how far a method's own kernel went in its training."""
    wanted = (method, method, "all")
    return next((d for d in results.drift if (d.method, d.tuning, d.part) == wanted), None)


def all_scaling(results: Results) -> ScalingSummary | None:
    """Return the summary of all scaling factors after training."""
    return next((s for s in results.scaling_vectors if s.module == TOTAL), None)


def could_leave(results: Results) -> bool:
    """Tell whether training could move z out of the paper's range at all.

    A step of Adam moves a parameter by about the learning rate, so steps times rate bounds z - 1.
    """
    run = run_of(results, "propulsion")
    return run is not None and run.steps * run.learning_rate > NEAR_ONE[1] - 1


def answer(results: Results) -> list[str]:
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


def _closeness(results: Results) -> str:
    distances = {part: at_start(results, part) for part in BOTH}
    errors = {part: shape_error(d.metrics) for part, d in distances.items() if d is not None}
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


def _numbers(results: Results) -> str:
    shown = ("cka", "alignment", "best_scale_error", "unbiased_cka")
    said = []
    for part in BOTH:
        distance = at_start(results, part)
        metrics = distance.metrics if distance else {}
        numbers = [
            f"{words.metric_label(name)} {estimate(name, metrics[name])}"
            for name in shown
            if value_of(metrics, name) is not None
        ]
        if numbers:
            said.append(f"{words.PARTS[part]}: {', '.join(numbers)}")
    return f"In numbers, {'; '.join(said)}." if said else ""


def _scale(results: Results) -> str:
    distance = at_start(results, "all")
    metrics = distance.metrics if distance else {}
    scale = value_of(metrics, "best_scale")
    if scale is None or scale <= 0:
        return ""
    raw = estimate("relative_frobenius", metrics.get("relative_frobenius"))
    factor = estimate("best_scale", metrics["best_scale"])
    if SAME_SCALE[0] <= scale <= SAME_SCALE[1]:
        return (
            f"Their scales agree to within a quarter (best factor {factor}), so the raw error "
            f"|K_F - K_P|/|K_F| of {raw} can be read as it stands."
        )
    full, propulsion = (_trace(results, tuning) for tuning in ("full", "propulsion"))
    ratio = f" (tr K_F / tr K_P = {number(full / propulsion)})" if full and propulsion else ""
    size = "smaller" if scale > 1 else "larger"
    return (
        f"K_P is {size} than K_F and comes nearest to it after multiplication by {factor}{ratio}; "
        f"the raw error |K_F - K_P|/|K_F| of {raw} says little, because two kernels of the very "
        f"same shape that far apart in scale already give {number(abs(1 - 1 / scale))}."
    )


def _trace(results: Results, tuning: str) -> float | None:
    wanted = ("theta0", tuning, "all")
    kernels = (k for k in results.kernels if (k.point, k.tuning, k.part) == wanted)
    return next((words.finite(kernel.trace) for kernel in kernels), None)


def _where_not(results: Results) -> str:
    modules = [module for module in results.per_module if module.point == "theta0"]
    scaled, missed = [], 0.0
    for module in modules:
        share = words.finite(module.trace_share_full) or 0.0
        alignment = words.finite(module.alignment)
        if alignment is None or not words.finite(module.trace_share_propulsion):
            missed += share
        elif share >= MATTERS:
            scaled.append((alignment, module.module, module.role))
    if not scaled:
        return ""
    worst = [f"{name} ({near_one(a)})" for a, name, _ in sorted(scaled)[:3]]
    names = "module" if len(worst) == 1 else "modules"
    text = f"Alignment is lowest in the {names} {listed(worst)}{_lowest_role(scaled)}"
    if missed > MATTERS:
        text += f"; {percent(missed)} of K_F's trace lies in modules that Propulsion doesn't scale"
    return text + "."


def _lowest_role(scaled: Sequence[tuple[float, str, str]]) -> str:
    by_role: defaultdict[str, list[float]] = defaultdict(list)
    for alignment, _, role in scaled:
        by_role[role].append(alignment)
    medians = {role: median(values) for role, values in by_role.items()}
    if len(medians) < 2:
        return ""
    lowest = min(medians, key=lambda role: medians[role])
    return (
        f"; by role in {lowest.replace('_', ' ')} (median {near_one(medians[lowest])}, "
        f"all modules {near_one(median(a for a, _, _ in scaled))})"
    )


def _training(results: Results) -> str:
    said = [_trained(results, run) for run in results.training]
    return "; ".join(said) + "." if said else ""


def _trained(results: Results, run: TrainingRun) -> str:
    metric = results.task.metric or "the metric"
    text = (
        f"{run.steps} steps of {words.tuning(run.method)} took {metric} from "
        f"{number(run.metric_before)} to {number(run.metric_after)}"
    )
    drift = own_drift(results, run.method)
    ends = _ends(drift.metrics.get("relative_frobenius")) if drift else None
    if drift is None or ends is None:
        return text
    moved = "left its own kernel in place" if ends[1] <= UNMOVED else "moved its own kernel"
    change = estimate("relative_frobenius", drift.metrics["relative_frobenius"])
    return (
        f"{text} and {moved} (raw change {change}, CKA {estimate('cka', drift.metrics.get('cka'))})"
    )


def _scaling(results: Results) -> str:
    total = all_scaling(results)
    if total is None:
        return ""
    share = words.finite(total.share_in_range) or 0.0
    low, high = NEAR_ONE
    text = (
        f"After training {percent(share)} of the {words.count(total.n)} scaling factors lie in "
        f"the paper's [{low}, {high}] (from {number(total.min, 4)} to "
        f"{number(total.max, 4)}), which are gains z**k from {number(total.gain_min)} to "
        f"{number(total.gain_max)}"
    )
    if not could_leave(results):
        text += "; training was too short for them to leave it"
    return text + "."


def _controls(results: Results) -> str:
    for part in reversed(BOTH):
        wanted = ("theta0", "full", part)
        ranked = sorted(
            (
                (cka, d.tuning)
                for d in results.distances
                if (d.point, d.reference, d.part) == wanted
                and (cka := value_of(d.metrics, "cka")) is not None
            ),
            reverse=True,
        )
        if len(ranked) > 1:
            listing = ", ".join(f"{words.tuning(t)} {near_one(c)}" for c, t in ranked)
            return f"CKA with K_F of every tuning, {words.PARTS[part]}: {listing}."
    return ""
