"""Rules that a pipeline can make an audit fail by."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from ntk_propulsion.errors import InputError, unknown

if TYPE_CHECKING:  # a command line shows the gates without torch
    from ntk_propulsion.auditing.checkpoint import AuditedCheckpoint

GATES = ("frozen-base", "finite", "range=LO:HI", "regime")


class Gate(NamedTuple):
    """A rule to fail by.

    Attributes:
        name: ``"frozen-base"``, ``"finite"``, ``"range"`` or ``"regime"``.
        bounds: Of a range.
    """

    name: str
    bounds: tuple[float, float] | None = None


def parse_gates(rules: Iterable[str], task: str | None) -> list[Gate]:
    """Return the rules that words such as ``"range=0.9:1.1"`` name.

    Args:
        rules: The words.
        task: The audit's task; the regime cannot be measured without one.

    Raises:
        InputError: A rule is unknown or incomplete.
    """
    found = []
    for rule in rules:
        name, _, rest = rule.partition("=")
        if name not in ("frozen-base", "finite", "range", "regime"):
            raise unknown("rule to fail on", rule, GATES)
        if name != "range" and rest:
            raise InputError(f"--fail-on {rule}: {name} takes no value")
        if name == "regime" and task is None:
            raise InputError("--fail-on regime: kernels need --task")
        found.append(Gate(name, _bounds(rule, rest) if name == "range" else None))
    return found


def _bounds(rule: str, text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(":"))
        if low <= high:
            return low, high
    except ValueError:
        pass
    raise InputError(f"--fail-on {rule}: give two numbers, e.g. range=0.98:1.02")


def failed(gates: Iterable[Gate], checkpoints: Iterable[AuditedCheckpoint]) -> list[str]:
    """Return what failed, a line each; what cannot be checked, or not fully, has failed.

    frozen-base: every tensor of the base outside its head is in the file and equals the base's but
    for what the file declares as trained; a head or a pooler may lack. Equal is to the bit, or, in
    a file of another precision, to the bit once the base is rounded to it: nothing was trained
    then. An adapter without base weights passes. finite: no NaN, no infinity. range: every z of
    every layer lies within. regime: the kernel regime holds, of a model that the file makes without
    the base's weights in place of missing ones; weakly is not enough.
    """
    checkpoints = list(checkpoints)
    return [
        f"{_named(gate)} failed for {of.name}: {why}"
        for gate in gates
        for of in checkpoints
        if (why := _why(gate, of))
    ]


def _named(gate: Gate) -> str:
    return gate.name if gate.bounds is None else "{}={:g}:{:g}".format(gate.name, *gate.bounds)


def _why(gate: Gate, of: AuditedCheckpoint) -> str:
    if gate.bounds is not None:
        return _outside(gate.bounds, of)
    return {"frozen-base": _thawed, "finite": _nonfinite, "regime": _left}[gate.name](of)


def _thawed(of: AuditedCheckpoint) -> str:
    found, part = of.integrity, of.coverage.outside_head
    checked = f"checked: {part.of_base}"
    if found.frozen_base == "refuted":
        return f"{found.undeclared_count} tensors differ, first {found.undeclared[0]}"
    if found.frozen_base == "incomplete":
        lacks = f"{found.missing_count} tensors of the base are not in the file"
        return f"{lacks if found.missing_count else 'not all could be compared'}; {checked}"
    if found.frozen_base == "not in the file" and not of.claims_frozen:
        return f"no tensor outside the head could be compared; {checked}"
    return ""


def _nonfinite(of: AuditedCheckpoint) -> str:
    bad = of.integrity.nonfinite
    return f"{sum(bad.values())} values are not, first in {next(iter(bad))}" if bad else ""


def _left(of: AuditedCheckpoint) -> str:
    from ntk_propulsion.auditing.shares import stand_ins  # not where options are shown: no torch

    if of.regime is None:
        return f"not measured: {of.kernels.reason if of.kernels else 'no --task was given'}"
    verdict = of.regime.kernel_regime
    if verdict == "holds":
        return f"not wholly measured{rest}" if (rest := stand_ins(of)) else ""
    return f"the verdict is {verdict!r}"


def _outside(bounds: tuple[float, float], of: AuditedCheckpoint) -> str:
    if of.vectors is None:
        return "it has no scaling vectors"
    if of.vectors.left_out or of.vectors.total is None:
        part = of.vectors.part.of_the("vectors'", "layer")
        return f"the scaling of {of.vectors.left_out[0]} is not finite; checked: {part}"
    low, high = bounds
    total = of.vectors.total
    inside = low <= total.min and total.max <= high
    return "" if inside else f"z reaches from {total.min:.6g} to {total.max:.6g}"
