"""The things worth knowing of a checkpoint, by written rules, the gravest first."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ntk_propulsion import words
from ntk_propulsion.auditing.checkpoint import AuditedCheckpoint, LargeChange
from ntk_propulsion.auditing.judgements import Finding
from ntk_propulsion.auditing.shares import huge, limits, stand_ins, unsaid
from ntk_propulsion.auditing.vector_findings import (
    FEW_OUTLIERS,
    LEAST,
    OUTSIDE,
    dead,
    degree,
    inside,
    outliers,
    range_left,
    signs,
)
from ntk_propulsion.propulsion import NEAR_ONE, NEAR_ZERO
from ntk_propulsion.words import plural

SEVERITIES = ("broken", "doubtful", "notable", "good to know")
"""Broken: not to be used as it is. Doubtful: not what it should be, look at it."""


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
        f"{first.name}{_by(first)}{_of_base(of)}"
    )


def _of_base(of: AuditedCheckpoint) -> str:
    """Say what part of the base outside its head this is about, where that is not all."""
    part = of.coverage.outside_head
    return "" if part.is_whole else f" ({part.of_base} could be compared)"


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
        f"{found.missing[0]}{_of_base(of)}"
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
    if of.kind.id == "part":
        rows = f"; tables have {of.coverage.rows}" if of.coverage.rows else ""
        more = of.coverage.added.count
        rows += f"; {plural(more, 'tensor')} more than the base" if more else ""
        return f"nothing that could be compared was tuned: {of.coverage.words}{rows}"
    if of.kind.id != "identical":
        return ""
    if of.integrity.rounded:
        return "nothing was tuned: every tensor is the base's, rounded"
    return "nothing was tuned: every tensor is the base's, to the bit"


def _another(of: AuditedCheckpoint) -> str:
    same = of.kind.id == "another model"
    return f"the base is not what it was tuned from, it seems: {of.kind.words}" if same else ""


def _huge(of: AuditedCheckpoint) -> str:
    return "" if of.kind.id == "another model" else huge(of)


def _resized(of: AuditedCheckpoint) -> str:
    rows = of.coverage.rows
    return f"tables of the base have {rows}: what both hold was compared" if rows else ""


def _holds_base(of: AuditedCheckpoint) -> str:
    part = of.coverage.outside_head
    held = of.kind.id == "adapter" and part.count
    return f"not an adapter's numbers alone: the file holds {part.of_base}" if held else ""


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
        f"{words.number(of.regime.feature_drift)}{stand_ins(of)}"
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
        f"{words.number(metric.base)} to {words.number(metric.tuned)}{stand_ins(of)}"
    )


def _share(of: AuditedCheckpoint) -> str:
    total = of.updates.total
    if total is None or total.share is None:
        reason = of.updates.reason
        return f"how much of it is a Propulsion cannot be said: {reason}" if reason else ""
    if reason := unsaid(of):
        return f"how much of it is a Propulsion is not said: {reason}"
    sure = " by construction" * (of.kind.id == "propulsion" and of.coverage.layers.is_whole)
    said = (
        f"a Propulsion explains{sure} {words.percent(total.share)} of the update of "
        f"{plural(total.layers, 'layer')} with {total.parameters:,} numbers; chance is "
        f"{words.percent(total.expected_share)}{limits(of)}"
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
        how = "but for rounding" if found.rounded else "to the bit"
        return (
            f"the base is frozen: {plural(found.compared, 'tensor')} equal the base's {how}, but "
            f"for what the checkpoint says it trained{_of_base(of)}"
        )
    if found.frozen_base == "not in the file":
        part = of.coverage.outside_head
        said = "base not in the file: nothing to compare"
        if part.count:
            said = f"base not in the file, but for {part.of_base}"
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
        f"{first.name}{_by(first)}{_of_base(of)}"
    )


def _sound(of: AuditedCheckpoint) -> str:
    return "" if of.integrity.nonfinite else "every value of the file is finite"


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
    Rule("identical", "doubtful", "no tensor that both hold differs", _identical),
    Rule("another", "doubtful", "most matrices are far from the base's (kinds.FAR)", _another),
    Rule("huge", "doubtful", "the update is as large as the weights", _huge),
    Rule("resized", "notable", "tables have rows that only one of the files has", _resized),
    Rule("held-base", "notable", "an adapter's file holds weights of the base", _holds_base),
    Rule("ties", "doubtful", "tensors that the base ties have different values", _ties),
    Rule("dead", "doubtful", f"gains lie below {NEAR_ZERO} in absolute value", dead),
    Rule("degree", "doubtful", "neither the checkpoint nor --degree says the degree", degree),
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
    Rule("range", "notable", f"{OUTSIDE:.0%} or more of z lie outside {NEAR_ONE}", range_left),
    Rule("signs", "notable", "z, which starts positive, has negative entries", signs),
    Rule(
        "outliers",
        "notable",
        f"{FEW_OUTLIERS:.1%} of z, and {LEAST} at least, are outliers",
        outliers,
    ),
    Rule("precision", "notable", "tensors changed their type", _dtypes),
    Rule("learned", "good to know", "a task was given", _learned),
    Rule("regime", "good to know", "the verdict on the regime is holds or undecided", _kept_regime),
    Rule("inside", "good to know", f"less than {OUTSIDE:.0%} of z lie outside {NEAR_ONE}", inside),
    Rule("share", "good to know", "always", _share),
    Rule("moved", "good to know", "a plain model changed", _moved),
    Rule("frozen", "good to know", "the base is confirmed frozen, or not in the file", _frozen),
    Rule("head", "good to know", "always", _head),
    Rule("sound", "good to know", "every value is finite", _sound),
)
