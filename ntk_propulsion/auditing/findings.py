"""The things worth knowing of a checkpoint, by written rules, the gravest first."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ntk_propulsion import words
from ntk_propulsion.auditing.checkpoint import AuditedCheckpoint, Finding, LargeChange
from ntk_propulsion.auditing.tables import VectorStatistics
from ntk_propulsion.propulsion import NEAR_ONE, NEAR_ZERO
from ntk_propulsion.words import plural

SEVERITIES = ("broken", "doubtful", "notable", "good to know")
"""Broken: not to be used as it is. Doubtful: not what it should be, look at it."""
OUTSIDE = 0.05
"""From this share of z outside the paper's range on, the range is said not to hold. Ours."""
FEW_OUTLIERS = 0.001
"""Up to this share of outliers nothing is said of them; nor of fewer than `LEAST`. Ours."""
LEAST = 3


class Rule(NamedTuple):
    """When something is worth saying.

    Attributes:
        name: Of the rule.
        severity: One of `SEVERITIES`.
        text: The rule in words.
        says: Returns what to say of a checkpoint; empty where the rule does not apply.
    """

    name: str
    severity: str
    text: str
    says: Callable[[AuditedCheckpoint], str]


def findings(of: AuditedCheckpoint) -> tuple[Finding, ...]:
    """Return what the rules say of a checkpoint, the gravest first."""
    found = [
        Finding(rule.name, rule.severity, said, rule.text)
        for rule in RULES
        if (said := rule.says(of))
    ]
    return tuple(sorted(found, key=lambda each: SEVERITIES.index(each.severity)))


def _nonfinite(of: AuditedCheckpoint) -> str:
    bad = of.integrity.nonfinite
    if not bad:
        return ""
    name = next(iter(bad))
    return (
        f"{plural(sum(bad.values()), 'value')} in {plural(len(bad), 'tensor')} are NaN "
        f"or infinite, first in {name}"
    )


def _thawed(of: AuditedCheckpoint) -> str:
    found = of.integrity
    if found.frozen_base != "refuted" or not of.claims_frozen:
        return ""
    if found.only_biases:
        return ""
    first = found.largest[0]
    return (
        f"the base is not frozen: {found.undeclared_count} of its tensors differ, most "
        f"{first.name}{_by(first)}"
    )


def _by(change: LargeChange) -> str:
    share = change.relative_norm
    return "" if share is None else f" (by {words.percent(share)} of its norm)"


def _broken_promise(of: AuditedCheckpoint) -> str:
    broken = [row.words for row in of.promises if row.holds is False]
    return f"not what the configuration promises: {'; '.join(broken)}" if broken else ""


def _incomplete(of: AuditedCheckpoint) -> str:
    found = of.integrity
    if not found.missing_count:
        return ""
    return (
        f"{plural(found.missing_count, 'tensor')} of the base are not in the file, e.g. "
        f"{found.missing[0]}"
    )


def _unknown(of: AuditedCheckpoint) -> str:
    keys = of.integrity.unknown
    return f"{plural(len(keys), 'key')} fit nothing, e.g. {keys[0]}" if keys else ""


def _ties(of: AuditedCheckpoint) -> str:
    broken = [tie for tie in of.integrity.ties if tie.state == "broken"]
    if not broken:
        return ""
    return f"tensors that are one in the base differ: {' and '.join(broken[0].tensors)}"


def _identical(of: AuditedCheckpoint) -> str:
    same = of.kind.id == "identical"
    return "nothing was tuned: every tensor is the base's, to the bit" if same else ""


def _degree(of: AuditedCheckpoint) -> str:
    if of.degree is not None or of.kind.id != "propulsion":
        return ""
    said = "degree unknown: no gain, and no kernel, is known (give --degree)"
    if of.vectors and of.vectors.by_degree:
        first, last = of.vectors.by_degree[0], of.vectors.by_degree[-1]
        said += (
            f"; gains would reach from {words.number(first.gain_min)} to "
            f"{words.number(first.gain_max)} at degree {first.degree}, from "
            f"{words.number(last.gain_min)} to {words.number(last.gain_max)} at degree "
            f"{last.degree}"
        )
    return said


def _total(of: AuditedCheckpoint) -> VectorStatistics | None:
    return of.vectors.total if of.vectors else None


def _dead(of: AuditedCheckpoint) -> str:
    total = _total(of)
    if total is None or not total.dead:
        return ""
    module, neuron, z = total.dead_neurons[0]
    return (
        f"{plural(total.dead, 'neuron')} of {total.n:,} are all but switched off, "
        f"first neuron {neuron} of {module} (z = {words.number(z)})"
    )


def _signs(of: AuditedCheckpoint) -> str:
    total = _total(of)
    if total is None or not total.sign_changes:
        return ""
    even = of.degree is not None and of.degree % 2 == 0
    follows = "an even degree hides it" if even else "an odd degree turns the neuron's sign"
    return f"{plural(total.sign_changes, 'entry', 'entries')} of z are negative: {follows}"


def _range(of: AuditedCheckpoint) -> str:
    total = _total(of)
    if total is None or 1 - total.share_in_range < OUTSIDE:
        return ""
    low, high = NEAR_ONE
    return (
        f"{words.percent(1 - total.share_in_range)} of z lie outside the paper's "
        f"[{low}, {high}], from {words.number(total.min, 4)} to "
        f"{words.number(total.max, 4)}{_gains(of, total)}"
    )


def _gains(of: AuditedCheckpoint, total: VectorStatistics) -> str:
    if of.degree is None:
        return " (gains: degree unknown)"
    return (
        f" (gains at degree {of.degree} from {words.number(total.gain_min)} to "
        f"{words.number(total.gain_max)})"
    )


def _inside(of: AuditedCheckpoint) -> str:
    total = _total(of)
    if total is None or 1 - total.share_in_range >= OUTSIDE:
        return ""
    low, high = NEAR_ONE
    gains = _gains(of, total)
    if of.degree is not None:
        near = words.percent(total.gain_share_in_range)
        gains += f", of which {near} lie in that range too"
    return f"{words.percent(total.share_in_range)} of z lie in the paper's [{low}, {high}]{gains}"


def _outliers(of: AuditedCheckpoint) -> str:
    total = _total(of)
    if total is None or total.outliers < max(LEAST, FEW_OUTLIERS * total.n):
        return ""
    module, neuron, z = total.furthest[0]
    return (
        f"{plural(total.outliers, 'entry', 'entries')} of z stand out by a robust z-score "
        f"(furthest: neuron {neuron} of {module}, z = {words.number(z, 4)}); the change is carried "
        f"by about {words.number(total.effective_moved)} of {total.n:,}"
    )


def _biases(of: AuditedCheckpoint) -> str:
    found = of.integrity
    if not (found.only_biases and of.claims_frozen):
        return ""
    return (
        f"{plural(found.undeclared_count, 'bias', 'biases')} of the base were trained too, "
        "as the public code does by default; weights are frozen"
    )


def _disguised(of: AuditedCheckpoint) -> str:
    kind = of.kind
    merged = kind.id in ("merged propulsion", "low rank")
    return f"a plain model by its keys, by its numbers {kind.words}" if merged else ""


def _dtypes(of: AuditedCheckpoint) -> str:
    changed = of.integrity.dtypes
    if not changed:
        return ""
    each = ", ".join(f"{row.tensors} from {row.base} to {row.tuned}" for row in changed)
    return f"stored in another precision than the base: {each}"


def _regime(of: AuditedCheckpoint) -> str:
    if of.regime is None:
        return ""
    said = {
        "holds": "stayed in the kernel regime",
        "weakly": "left the kernel regime in part",
        "not": "left the kernel regime",
        "undecided": "moved too little for the precision to tell the regime",
    }[of.regime.kernel_regime]
    return (
        f"the training of {of.regime.of} {said}: linearization error "
        f"{words.number(of.regime.linearization_error)}, feature drift "
        f"{words.number(of.regime.feature_drift)}"
    )


def _left_regime(of: AuditedCheckpoint) -> str:
    left = of.regime is not None and of.regime.kernel_regime in ("not", "weakly")
    return _regime(of) if left else ""


def _kept_regime(of: AuditedCheckpoint) -> str:
    return "" if _left_regime(of) else _regime(of)


def _learned(of: AuditedCheckpoint) -> str:
    if of.kernels is None or of.kernels.metric is None:
        return ""
    metric = of.kernels.metric
    return (
        f"{metric.name} on the kernels' {of.kernels.examples} examples went from "
        f"{words.number(metric.base)} to {words.number(metric.tuned)}"
    )


def _share(of: AuditedCheckpoint) -> str:
    total = of.updates.total
    if total is None or total.share is None:
        reason = of.updates.reason
        return f"how much of it is a Propulsion cannot be said: {reason}" if reason else ""
    sure = " by construction" * (of.kind.id == "propulsion")
    said = (
        f"a Propulsion explains{sure} {words.percent(total.share)} of the update of "
        f"{plural(total.layers, 'layer')} with {total.parameters:,} numbers; chance is "
        f"{words.percent(total.expected_share)}"
    )
    if of.updates.left_out:
        said += f" ({plural(of.updates.left_out, 'layer')} left out: "
        said += f"{of.updates.reason})"
    if total.lora:
        first = total.lora[0]
        said += (
            f", the closest update of rank {first.rank} {words.percent(first.share)} with "
            f"{first.parameters:,}"
        )
    return said


def _frozen(of: AuditedCheckpoint) -> str:
    found = of.integrity
    if found.frozen_base == "confirmed":
        return (
            f"the base is frozen: {plural(found.compared, 'tensor')} equal the base's to "
            "the bit, but for what the checkpoint says it trained"
        )
    if found.frozen_base == "not in the file":
        said = "base not in the file: nothing to compare"
        trained = len(found.declared)
        more = "or more " * (trained < found.changed)
        return f"{said}; it comes with {trained} {more}of its tensors trained" if trained else said
    return ""


def _moved(of: AuditedCheckpoint) -> str:
    found = of.integrity
    if of.claims_frozen or not found.largest:
        return ""
    first = found.largest[0]
    return (
        f"{found.changed} of {found.compared} tensors differ from the base, most "
        f"{first.name}{_by(first)}"
    )


def _sound(of: AuditedCheckpoint) -> str:
    return "" if of.integrity.nonfinite else "every value is finite"


def _head(of: AuditedCheckpoint) -> str:
    return f"head: {of.integrity.head}"


RULES = (
    Rule("finite", "broken", "any value of the file is NaN or infinite", _nonfinite),
    Rule(
        "frozen-base",
        "broken",
        "a Propulsion or an adapter comes with weights of the base that are not the base's",
        _thawed,
    ),
    Rule("promises", "doubtful", "counts differ from what the configuration says", _broken_promise),
    Rule("missing", "doubtful", "a file with base weights lacks some of them", _incomplete),
    Rule("unknown", "doubtful", "keys fit no dialect", _unknown),
    Rule("identical", "doubtful", "no tensor differs from the base's", _identical),
    Rule("ties", "doubtful", "tensors that the base ties have different values", _ties),
    Rule("dead", "doubtful", f"gains lie below {NEAR_ZERO} in absolute value", _dead),
    Rule("degree", "doubtful", "neither the checkpoint nor --degree says the degree", _degree),
    Rule(
        "regime-left",
        "notable",
        "the verdict on the kernel regime is weakly or not (ntk_propulsion.measurements.regime)",
        _left_regime,
    ),
    Rule(
        "merged",
        "notable",
        "the keys are a plain model's, the update a Propulsion's or of low rank "
        "(ntk_propulsion.auditing.kinds)",
        _disguised,
    ),
    Rule("biases", "notable", "nothing of a frozen base changed but biases", _biases),
    Rule("range", "notable", f"{OUTSIDE:.0%} or more of z lie outside {NEAR_ONE}", _range),
    Rule("signs", "notable", "z, which starts positive, has negative entries", _signs),
    Rule(
        "outliers",
        "notable",
        f"{FEW_OUTLIERS:.1%} of z, and {LEAST} at least, are outliers",
        _outliers,
    ),
    Rule("precision", "notable", "tensors changed their type", _dtypes),
    Rule("learned", "good to know", "a task was given", _learned),
    Rule("regime", "good to know", "the verdict on the regime is holds or undecided", _kept_regime),
    Rule("inside", "good to know", f"less than {OUTSIDE:.0%} of z lie outside {NEAR_ONE}", _inside),
    Rule("share", "good to know", "always", _share),
    Rule("moved", "good to know", "a plain model changed", _moved),
    Rule("frozen", "good to know", "the base is confirmed frozen, or not in the file", _frozen),
    Rule("head", "good to know", "always", _head),
    Rule("sound", "good to know", "every value is finite", _sound),
)
