"""The verdicts on one checkpoint, by name, and the whole in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ntk_propulsion import words
from ntk_propulsion.auditing.checkpoint import AuditedCheckpoint, Integrity
from ntk_propulsion.auditing.findings import SEVERITIES
from ntk_propulsion.auditing.judgements import Verdict
from ntk_propulsion.auditing.shares import limits, measured, stand_ins, unsaid
from ntk_propulsion.words import plural

WORTH_KNOWING = 3
BY_DEGREE = ("kind", "range", "propulsion-share", "regime")
"""Verdicts that depend on the degree, and say so where it is unknown."""

_REGIME = {
    "holds": "it stayed in the kernel regime",
    "weakly": "it left the kernel regime in part",
    "not": "it left the kernel regime",
    "undecided": "the precision does not tell whether it stayed in the kernel regime",
}


def verdicts(of: AuditedCheckpoint) -> tuple[Verdict, ...]:
    """Return the verdict on each question, all of them answered."""
    answers = (
        _kind(of),
        _frozen(of),
        _finite(of.integrity),
        _promises(of),
        _ties(of.integrity),
        _range(of),
        _share(of),
        _regime(of),
    )
    if of.degree is not None or of.kind.id != "propulsion":
        return answers
    return tuple(_marked(each) if each.id in BY_DEGREE else each for each in answers)


def _marked(verdict: Verdict) -> Verdict:
    if "degree unknown" in verdict.words:
        return verdict
    return replace(verdict, words=f"{verdict.words} (degree unknown)")


def _kind(of: AuditedCheckpoint) -> Verdict:
    plain = of.kind.id not in ("propulsion", "adapter", "trained")
    rests_on = of.coverage.words if plain else "the file's keys"
    return Verdict("kind", of.kind.id, of.kind.words, rests_on)


def _frozen(of: AuditedCheckpoint) -> Verdict:
    found, part = of.integrity, of.coverage.outside_head
    rests_on = f"{part.of_base}, its head left out" if part.of else ""
    return Verdict("frozen-base", found.frozen_base, _frozen_words(of), rests_on)


def _frozen_words(of: AuditedCheckpoint) -> str:
    found, part = of.integrity, of.coverage.outside_head
    held = "" if part.is_whole else f", of {part.of_base}"
    if found.frozen_base == "not in the file":
        if not part.count:
            return "base not in the file: nothing to compare"
        return (
            f"base not in the file but for {part.of_base}: "
            f"{found.changed} of {plural(found.compared, 'tensor')} differ"
        )
    said = f"{found.changed} of {plural(found.compared, 'tensor')} outside the head differ{held}"
    if found.undeclared:
        said += f", {found.undeclared_count} of them undeclared: {found.undeclared[0]}"
        said += " ..." * (found.undeclared_count > 1)
    if found.rounded:
        said += f"; {found.rounded} more are rounded and otherwise the base's"
    return said


def _finite(found: Integrity) -> Verdict:
    bad = sum(found.nonfinite.values())
    said = f"{plural(bad, 'value')} NaN or infinite"
    return Verdict("finite", "no" if bad else "yes", said, "every value of the file")


def _promises(of: AuditedCheckpoint) -> Verdict:
    broken = [each.words for each in of.promises if each.holds is False]
    checked = any(each.holds is not None for each in of.promises)
    said = "; ".join(broken or [each.words for each in of.promises])
    return Verdict(
        "promises",
        "broken" if broken else "kept" if checked else "not checked",
        said or "no configuration promises anything",
    )


def _ties(found: Integrity) -> Verdict:
    broken = sum(tie.state == "broken" for tie in found.ties)
    if not found.ties:
        return Verdict("ties", "none", "the base ties nothing")
    said = f"{broken} of {plural(len(found.ties), 'tie')} broken"
    return Verdict("ties", "broken" if broken else "kept", said)


def _range(of: AuditedCheckpoint) -> Verdict:
    if of.vectors is None or of.vectors.total is None:
        return Verdict("range", "not applicable", "no scaling vectors, or none that is finite")
    total, (low, high) = of.vectors.total, of.vectors.range
    inside = words.percent(total.share_in_range)
    said = f"{inside} of z in [{low}, {high}], from {total.min:.4f} to {total.max:.4f}"
    if of.degree is not None:
        near = words.percent(total.gain_share_in_range)
        said += (
            f"; gains z**{of.degree} from {words.number(total.gain_min)} to "
            f"{words.number(total.gain_max)}, {near} of them in that range"
        )
    part = of.vectors.part
    rests_on = part.of_the("vectors'", "layer")
    if not part.is_whole:
        said += f", of {rests_on}: the others are not finite"
    held = total.share_in_range == 1 and part.is_whole
    return Verdict("range", "holds" if held else "does not hold", said, rests_on)


def _share(of: AuditedCheckpoint) -> Verdict:
    total, rests_on = of.updates.total, measured(of)
    if total is None or total.share is None:
        return Verdict("propulsion-share", "not applicable", str(of.updates.reason))
    if reason := unsaid(of):
        said = f"not said of the whole: {reason}"
        return Verdict("propulsion-share", "not applicable", said, rests_on)
    share = words.percent(total.share)
    said = (
        f"{share} of the update of {plural(total.layers, 'layer')} "
        f"(chance {words.percent(total.expected_share)}){limits(of)}"
    )
    part = of.coverage.layers
    short = share if part.is_whole else f"{share} of {words.percent(part.share)}"
    return Verdict("propulsion-share", short, said, rests_on)


def _regime(of: AuditedCheckpoint) -> Verdict:
    if of.updates.unmergeable:
        return Verdict("regime", "not applicable", of.updates.unmergeable)
    if of.regime is None:
        reason = of.kernels.reason if of.kernels else None
        return Verdict("regime", "not measured", reason or "no --task was given")
    said = (
        f"linearization error {words.number(of.regime.linearization_error)}, feature drift "
        f"{words.number(of.regime.feature_drift)}, of {of.regime.of}{stand_ins(of)}"
    )
    examples = plural(of.kernels.examples, "example") if of.kernels else ""
    return Verdict("regime", of.regime.kernel_regime, said, examples)


def sentence(of: AuditedCheckpoint) -> str:
    """Say in one sentence what a checkpoint is, whether its base is frozen, and what it learned."""
    found, total = of.integrity, of.updates.total
    parts = [f"{of.name} is {of.kind.words}"]
    if of.claims_frozen:
        parts.append(_is_frozen(of))
    elif found.compared:
        parts.append(
            f"{found.changed} of the {plural(found.compared, 'tensor')} outside the head that "
            "both hold differ from the base"
        )
    if total is not None and total.share is not None:
        reason = unsaid(of)
        said = f"{words.percent(total.share)} of its update is a Propulsion{limits(of)}"
        parts.append(f"no share of it is called a Propulsion, for {reason}" if reason else said)
    if of.regime is not None:
        parts.append(f"{_REGIME[of.regime.kernel_regime]}{stand_ins(of)}")
    if found.nonfinite:
        parts.append("some of its values are NaN or infinite")
    return f"{'; '.join(parts)}."


def _is_frozen(of: AuditedCheckpoint) -> str:
    found, part = of.integrity, of.coverage.outside_head
    share = "" if part.is_whole else f", judged by {part.of_base}"
    if found.frozen_base == "not in the file":
        return "the file does not hold its base"
    if found.frozen_base == "refuted":
        return f"its base is not frozen{share}"
    rounded = ", but for rounding" if found.rounded else ""
    held = " as far as the file holds it" if found.frozen_base == "incomplete" else ""
    return f"its base is frozen{held}{rounded}{share}"


def answer(checkpoints: Sequence[AuditedCheckpoint]) -> tuple[str, ...]:
    """Return the verdict in plain words, and the three things most worth knowing.

    Of several checkpoints: a sentence each, and the gravest findings of all.
    """
    several = len(checkpoints) > 1
    ranked = [(finding, of.name) for of in checkpoints for finding in of.findings]
    ranked.sort(key=lambda pair: SEVERITIES.index(pair[0].severity))
    gravest = [
        f"{i}. {each.severity.capitalize()}: {name + ': ' if several else ''}{each.words}."
        for i, (each, name) in enumerate(ranked[:WORTH_KNOWING], 1)
    ]
    return (" ".join(map(sentence, checkpoints)), *gravest)
