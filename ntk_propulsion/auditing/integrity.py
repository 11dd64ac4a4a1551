"""Is a checkpoint what it says: a frozen base, finite values, ties kept, nothing left over?"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import torch

from ntk_propulsion.auditing.checkpoint import DtypeChange, Integrity, LargeChange, Tie
from ntk_propulsion.auditing.coverage import Coverage
from ntk_propulsion.auditing.subject import Subject
from ntk_propulsion.auditing.tables import AuditedTensor
from ntk_propulsion.auditing.tensors import largest_changes, nonfinite_elsewhere

LISTED = 20
"""Names that a list in the report holds at most; the table of tensors holds all."""
_INPUT = re.compile(r"(^|\.)(word_embeddings|embed_tokens|wte|shared)\.weight$")
_OUTPUT = re.compile(r"(^|\.)(lm_head|embed_out|predictions\.decoder|lm_head\.decoder)\.weight$")


def integrity(subject: Subject, tensors: Sequence[AuditedTensor], coverage: Coverage) -> Integrity:
    """Return what the pass over the tensors says of the checkpoint's integrity.

    Args:
        subject: The checkpoint beside its base.
        tensors: Those of `compare_weights`.
        coverage: What share of the base they are.
    """
    inside = [tensor for tensor in tensors if tensor.role != "head"]
    moved = [tensor for tensor in inside if tensor.changed]
    loose = [tensor for tensor in moved if not tensor.declared]
    undeclared = tuple(tensor.name for tensor in loose)
    missing = tuple(tensor.name for tensor in inside if _is_missed(tensor))
    carries_base = subject.carries_base or coverage.encoder.is_whole
    extra = [tensor.name for tensor in tensors if tensor.state == "not in the base"]
    return Integrity(
        frozen_base=_frozen(carries_base, undeclared, coverage),
        changed=len(moved),
        compared=sum(tensor.changed is not None for tensor in inside),
        undeclared=undeclared[:LISTED],
        undeclared_count=len(undeclared),
        only_biases=bool(undeclared) and all(name.endswith(".bias") for name in undeclared),
        declared=tuple(tensor.name for tensor in moved if tensor.declared)[:LISTED],
        head=_head(tensors),
        largest=tuple(
            LargeChange(tensor.name, tensor.relative_norm, tensor.largest)
            for tensor in largest_changes(loose or moved)
        ),
        nonfinite={each.name: each.nonfinite for each in tensors if each.nonfinite}
        | nonfinite_elsewhere(subject),
        nonfinite_base={each.name: each.nonfinite_base for each in tensors if each.nonfinite_base},
        missing=missing[:LISTED] if carries_base else (),
        missing_count=len(missing) if carries_base else 0,
        extra=tuple(extra[:LISTED]),
        unknown=tuple(subject.dialect.unknown),
        ties=ties(subject),
        dtypes=_dtypes(inside),
        entries=_entries(subject),
        names=subject.alignment.words,
        rounded=sum(tensor.state == "unchanged but for precision" for tensor in inside),
    )


def _is_missed(tensor: AuditedTensor) -> bool:
    """Tell whether a tensor is missing that a whole checkpoint of any class would hold.

    Heads and poolers are of some classes only, and buffers of some versions: `Coverage` counts a
    pooler and the base's head all the same.
    """
    optional = tensor.role in ("head", "pooler") or not tensor.parameters
    return tensor.state == "not in the file" and not optional


def _frozen(carries_base: bool, undeclared: Sequence[str], coverage: Coverage) -> str:
    """Return "confirmed", "refuted", "incomplete" or "not in the file".

    Incomplete: tensors are missing, or rows of a table, or what is there is in a format that does
    not tell.
    """
    if undeclared:
        return "refuted"
    if not carries_base or not coverage.outside_head.count:
        return "not in the file"
    return "confirmed" if coverage.encoder.is_whole else "incomplete"


def _head(tensors: Iterable[AuditedTensor]) -> str:
    """Say what became of the head."""
    states = {tensor.state for tensor in tensors if tensor.role == "head"} - {"not in the file"}
    if not states:
        return "no head in the file"
    if states == {"not in the base"}:
        return "the base has none: nothing to compare"
    if "another shape" in states:
        return "another shape than the base's"
    if "another precision" in states:
        return "in a format whose rounding is not modelled: nothing to compare"
    if "changed" in states:
        return "changed"
    rounded = "unchanged but for precision" in states
    return "unchanged but for precision" if rounded else "unchanged"


def _dtypes(tensors: Iterable[AuditedTensor]) -> tuple[DtypeChange, ...]:
    """Count tensors whose type changed, by the two types."""
    found = Counter(
        (tensor.dtype, tensor.tuned_dtype)
        for tensor in tensors
        if tensor.dtype and tensor.tuned_dtype and tensor.tuned_dtype != tensor.dtype
    )
    return tuple(DtypeChange(str(base), str(tuned), n) for (base, tuned), n in found.items())


def _entries(subject: Subject) -> dict[str, int]:
    """Count the numbers in the tuned file by what the dialect takes them for."""
    found: dict[str, int] = {}
    for key, info in subject.tuned.items():
        role = subject.dialect.roles[key]
        found[role] = found.get(role, 0) + torch.Size(info.shape).numel()
    return found


def ties(subject: Subject) -> tuple[Tie, ...]:
    """Say of each pair of tensors that are one in the base whether they still are.

    Pairs are what the base's file keeps as one tensor, and the table of words with the output
    layer where the configuration ties them or the base holds them equal.
    """
    found = []
    for a, b in _tied_pairs(subject):
        keys = [subject.keys.get(name) for name in (a, b)]
        state = "kept"
        if None in keys:
            state = "not in the file" if keys == [None, None] else "kept"
        elif keys[0] != keys[1]:
            one, other = (subject.tuned.tensor(str(key)) for key in keys)
            same = one.shape == other.shape and torch.equal(one, other)
            state = "kept" if same else "broken"
        found.append(Tie((a, b), state))
    return tuple(found)


def _tied_pairs(subject: Subject) -> list[tuple[str, str]]:
    base, pairs = subject.base, []
    for tie in base.ties:
        pairs += [(tie[0], other) for other in tie[1:]]
    names = [*base, *subject.extra]
    tables = [name for name in names if _INPUT.search(name)]
    outputs = [name for name in names if _OUTPUT.search(name)]
    if len(tables) == len(outputs) == 1 and _are_tied(subject, tables[0], outputs[0]):
        pairs.append((tables[0], outputs[0]))
    return [pair for i, pair in enumerate(pairs) if set(pair) not in map(set, pairs[:i])]


def _are_tied(subject: Subject, table: str, output: str) -> bool:
    base = subject.base
    if table in base and output in base:
        same = base[table].shape == base[output].shape
        return same and torch.equal(base.tensor(table), base.tensor(output))
    return base.config.get("tie_word_embeddings", True) is not False
