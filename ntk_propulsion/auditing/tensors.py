"""One tensor of base and checkpoint after the other: is it there, did it change, how far?"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ntk_propulsion.auditing.rounding import is_base_s_rounding, stored_base
from ntk_propulsion.auditing.subject import Subject, real
from ntk_propulsion.auditing.tables import AuditedTensor
from ntk_propulsion.models.roles import is_norm, role_of
from ntk_propulsion.theory.changes import TensorChange, blocks, tensor_change
from ntk_propulsion.theory.rounding import Precision
from ntk_propulsion.theory.updates import Explained
from ntk_propulsion.words import finite

DECLARED = ("trained bias", "trained weight")
_BUFFER = re.compile(
    r"(^|\.)(inv_freq|masked_bias|position_ids|token_type_ids|num_batches_tracked)$"
)
"""Names of what models keep beside their parameters, and files of newer versions leave out."""
_UNSURE = "within the base's rounding"
_HELD_BASE = ".base_layer."


class Compared(NamedTuple):
    """A tensor, compared.

    Attributes:
        row: What the report says of it.
        moved: |D|**2 of its change, what rounding made of it and |W0|**2; zeros where it has none.
        precision: How its numbers were stored.
    """

    row: AuditedTensor
    moved: Explained
    precision: Precision


def compared(subject: Subject, name: str) -> Compared:
    """Compare a tensor of the base with the file's."""
    info, key = subject.base[name], subject.keys.get(name)
    row = AuditedTensor(
        name,
        _role(subject, name, key),
        tuple(info.shape),
        _dtype(info.dtype),
        None,
        "not in the file",
        parameters=_parameters(subject, name),
    )
    unknown = Precision(None)
    if not key:
        return Compared(row, Explained(), unknown)
    tuned, after = subject.tuned[key], real(subject.tuned.tensor(key))
    row = replace(
        row,
        tuned_dtype=_dtype(tuned.dtype),
        state="another shape",
        changed=True,
        nonfinite=_nonfinite(after),
        declared=_declared(subject, key),
    )
    if tuned.shape != info.shape and name not in subject.resized:
        return Compared(row, Explained(), unknown)
    before = real(subject.base.tensor(name))
    if rows := subject.resized.get(name):
        before, after = before[: rows.shared], after[: rows.shared]
        row = replace(row, rows_added=rows.added, rows_dropped=rows.dropped)
    stored = stored_base(subject, name, before, after)
    change = tensor_change(before, after, stored.base)
    state, changed = _state(subject, name, before, after, change, stored.base, stored.precision)
    row = replace(
        row,
        state=state,
        changed=changed,
        compared=min(row.parameters, before.numel()) if changed is not None else 0,
        relative_norm=finite(change.relative_norm),
        largest=finite(change.largest),
        nonfinite_base=change.nonfinite_before,
        correlation=finite(change.correlation),
        distance=finite(change.distance),
        size_ratio=finite(change.size_ratio),
    )
    if grid := stored.precision.stored:
        row = replace(row, grid=_dtype(grid))
    if not changed or change.norm is None or not row.parameters:
        return Compared(row, Explained(), stored.precision)
    errors, furthest = 0.0, 0.0
    for old, new in zip(blocks(before), blocks(after), strict=True):
        variances = stored.precision.after(new)
        errors += float(variances.sum())
        furthest = max(furthest, float((np.abs(new - old) / np.sqrt(12 * variances)).max()))
    row = replace(row, spacings=finite(furthest) if grid else None)
    moved = Explained(base=(change.base_norm or 0) ** 2, update=change.norm**2, rounding=errors)
    return Compared(row, moved, stored.precision)


def _state(
    subject: Subject,
    name: str,
    before: Tensor,
    after: Tensor,
    change: TensorChange,
    stored: Tensor | None,
    precision: Precision,
) -> tuple[str, bool | None]:
    """Return the state of a tensor that both have, and whether it changed."""
    if not change.changed:
        return "unchanged but for precision" if change.rounded else "unchanged", False
    if stored is None:
        return "another precision", None
    rounded = change.norm is not None and is_base_s_rounding(
        subject, name, before, after, precision
    )
    if rounded is None:
        return _UNSURE, None
    return ("unchanged but for precision", False) if rounded else ("changed", True)


def settled(rows: Sequence[AuditedTensor]) -> list[AuditedTensor]:
    """Return the rows, those of too few numbers to tell decided by the others.

    A few numbers that differ from a base of coarser ones by less than its rounding are the base's
    where nothing else of it changed, and were trained where something did.
    """
    changed = any(row.changed and row.parameters for row in rows)
    state = "changed" if changed else "unchanged but for precision"
    return [
        replace(row, state=state, changed=changed, compared=row.parameters)
        if row.state == _UNSURE
        else row
        for row in rows
    ]


def added(subject: Subject, name: str) -> AuditedTensor:
    """Describe a tensor that the base lacks."""
    key = subject.keys[name]
    info = subject.tuned[key]
    return AuditedTensor(
        name,
        _role(subject, name, key),
        tuple(info.shape),
        None,
        _dtype(info.dtype),
        "not in the base",
        nonfinite=_nonfinite(real(subject.tuned.tensor(key))),
        declared=_declared(subject, key),
    )


def nonfinite_elsewhere(subject: Subject) -> dict[str, int]:
    """Count NaN and infinite entries of vectors, factors and unknown keys, where there are any."""
    named = set(subject.keys.values())
    rest = [key for key in subject.tuned if key not in named]
    found = {key: _nonfinite(real(subject.tuned.tensor(key))) for key in rest}
    return {key: count for key, count in found.items() if count}


def largest_changes(tensors: list[AuditedTensor], top: int = 5) -> list[AuditedTensor]:
    """Return the changed tensors that moved most, relative to their size; what had none, last."""
    changed = [tensor for tensor in tensors if tensor.changed]
    return sorted(changed, key=lambda tensor: -(tensor.relative_norm or 0.0))[:top]


def _parameters(subject: Subject, name: str) -> int:
    info = subject.base[name]
    if _BUFFER.search(name) or not (info.dtype.is_floating_point or info.dtype.is_complex):
        return 0
    return math.prod(info.shape)


def _declared(subject: Subject, key: str) -> bool:
    """Tell whether a file says that it trained a tensor: what carries no base says so of all."""
    if _HELD_BASE in key:
        return False
    return subject.dialect.roles.get(key) in DECLARED or not subject.carries_base


def _role(subject: Subject, name: str, key: str | None) -> str:
    module = name.rpartition(".")[0]
    role = role_of(module)
    known = name in subject.base or f"{module}.weight" in subject.base
    if role == "head" and known and re.search(r"(^|\.)pooler\.", name):
        return "pooler"  # pretrained with the base, and frozen with it
    if key and subject.dialect.roles.get(key) == "head":
        return "head"
    return "norm" if role == "other" and is_norm(module) else role


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _nonfinite(tensor: Tensor) -> int:
    return int((~tensor.isfinite()).sum())
