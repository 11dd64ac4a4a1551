"""How much of an update is a Propulsion, with what that rests on; or why nobody can say."""

from __future__ import annotations

from ntk_propulsion import words
from ntk_propulsion.auditing.checkpoint import AuditedCheckpoint

MOST = 0.5
"""A share is said of the whole update where at least this part of its layers' parameters could be
measured, and where rounding made less than this part of it. Ours."""
NOTED = 0.01
"""From this part of the update on, what lies outside layers, or is rounding's, is said. Ours."""


def unsaid(of: AuditedCheckpoint) -> str:
    """Return why the share is not said as a headline, empty where it is."""
    total, part = of.updates.total, of.coverage.layers
    if total is None or total.share is None:
        return str(of.updates.reason)
    if part.share < MOST:
        reason = f" ({of.updates.reason})" if of.updates.reason else ""
        return f"only {measured(of)} could be measured{reason}"
    if of.kind.id == "another model" or _is_huge(of):
        return f"the update is as large as the weights: {_times(total.relative_norm)} their norm"
    if total.rounding_share is None:
        return (
            "how far the file's format rounds each number is not modelled: the update may be that"
        )
    moved = [each for each in of.tensors if each.changed and each.role != "head"]
    if of.kind.id == "unread" and all((each.spacings or 2) <= 1 for each in moved):
        return "no number moved further than rounding can move it"
    if total.rounding_share > MOST:
        rounded = words.percent(min(total.rounding_share, 1.0))
        return f"rounding explains {rounded} of the update"
    return ""


def huge(of: AuditedCheckpoint) -> str:
    """Say by how much an update is larger than the weights, empty where it is not."""
    total = of.updates.total
    if total is None or (total.relative_norm or 0) < 1:
        return ""
    return f"the update of {measured(of)} is {_times(total.relative_norm)} the norm of the weights"


def measured(of: AuditedCheckpoint) -> str:
    """Say what part of the changed layers could be measured."""
    part = of.coverage.layers
    return part.of_the("changed layers'", "layer") if part.of else "no layer"


def limits(of: AuditedCheckpoint) -> str:
    """Return what a share leaves out, to stand behind it; empty where that is nothing."""
    total, part = of.updates.total, of.coverage.layers
    said = []
    if part.of and not part.is_whole:
        said.append(f"of {measured(of)}")
    if total and (total.update_outside_layers or 0) >= NOTED:
        outside = words.percent(total.update_outside_layers)
        said.append(f"{outside} of the squared change lies outside layers")
    if total and (total.rounding_share or 0) >= NOTED:
        said.append(f"rounding explains {words.percent(total.rounding_share)} of it")
    return f" ({'; '.join(said)})" if said else ""


def stand_ins(of: AuditedCheckpoint) -> str:
    """Say that models were made with weights of the base in place of what a file lacks."""
    part = of.coverage.outside_head
    if part.is_whole or not part.count or of.integrity.frozen_base == "not in the file":
        return ""
    return f" (the base's weights stand in for the rest: {part.of_base} could be compared)"


def _is_huge(of: AuditedCheckpoint) -> bool:
    gains = of.kind.id == "propulsion" and of.integrity.frozen_base != "refuted"
    return bool(huge(of)) and not (gains or of.kind.id == "merged propulsion")


def _times(relative: float | None) -> str:
    return f"{words.number(relative)} times"
