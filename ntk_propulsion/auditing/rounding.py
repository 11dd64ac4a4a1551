"""What storing the base as a checkpoint is stored would have done to it: told from training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ntk_propulsion.auditing.subject import Subject, real
from ntk_propulsion.checkpoints import Checkpoint
from ntk_propulsion.theory.changes import double
from ntk_propulsion.theory.rounding import Precision, coarser, grid_of, looks_rounded

NOT_MODELLED = "stored in a format whose rounding is not modelled"

PROBE = 2**20
"""Entries of a tensor at most that a format, or a rounding, is told by."""


@dataclass(frozen=True)
class Stored:
    """A tensor of the base as the checkpoint would store it.

    Attributes:
        base: Its values, read again; None where nobody knows how the format rounds.
        precision: How numbers were stored before and after.
    """

    base: Tensor | None
    precision: Precision


def stored_base(subject: Subject, name: str, before: Tensor, after: Tensor) -> Stored:
    """Return what storing the base's tensor alone gives.

    A file's type does not tell the whole: float32 numbers that bfloat16 holds all were rounded to
    bfloat16 once.

    Args:
        subject: The two checkpoints.
        name: The tensor's name in the base.
        before: What the base has, or the rows of it that are compared.
        after: The checkpoint's of the same shape.
    """
    key, tuned = subject.keys[name], subject.tuned
    if not (before.is_floating_point() and after.is_floating_point()):
        return Stored(_rounded(tuned, key, before), Precision(None))
    grid, dtype = grid_of(after), tuned[key].dtype
    widened = dtype.is_floating_point and coarser(dtype, grid) is not dtype
    base = _rounded(tuned, key, before.to(grid).to(before.dtype) if widened else before)
    if base is None or not _is_plain(tuned, key, before):
        return Stored(base, Precision(None))
    if not dtype.is_floating_point:
        dtype = grid
    grid, base_grid = coarser(dtype, grid), coarser(subject.base[name].dtype, grid_of(before))
    hidden = torch.finfo(base_grid).eps > torch.finfo(grid).eps
    return Stored(base, Precision(grid, base_grid if hidden else None))


def is_base_s_rounding(
    subject: Subject, name: str, before: Tensor, after: Tensor, precision: Precision
) -> bool | None:
    """Tell whether a base of coarser numbers differs from the checkpoint by its own rounding alone.

    So it is where rounding the checkpoint gives the base, and the differences are as large as
    rounding leaves them: a training that moved every number by less is none. None where there are
    too few numbers to tell.
    """
    if precision.base is None:
        return False
    rounded = _rounded(subject.base, name, after.to(precision.base).to(after.dtype))
    if rounded is None or not torch.equal(rounded, before.to(rounded.dtype)):
        return False
    old, new = (double(each.reshape(-1)[:PROBE]) for each in (before, after))
    return looks_rounded(old - new, new, precision.base)


def _rounded(checkpoint: Checkpoint, key: str, values: Tensor) -> Tensor | None:
    found = checkpoint.rounded(key, values)
    return None if found is None else real(found)


def _is_plain(tuned: Checkpoint, key: str, before: Tensor) -> bool:
    """Tell whether a format stores each number by itself: asked with odd numbers."""
    if before.ndim and before.numel() > PROBE:
        before = before[: max(1, PROBE * len(before) // before.numel())]
    odd = before * 1.0123 if before.dtype.itemsize >= 4 else before.float() * 1.0123
    found = tuned.rounded(key, odd)
    return found is not None and torch.equal(
        real(found).nan_to_num(), real(odd.to(tuned[key].dtype)).nan_to_num()
    )
