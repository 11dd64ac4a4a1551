"""What storing numbers does to them: the rounding that a tuning's update must stand out of.

A number that a file stores lies within half a spacing of what it was; where the update moves it by
more than a fraction of that, the error is as good as uniform and independent, of variance
spacing**2 / 12. Expected squares of the errors follow, in all, and by rows and columns; so does the
edge below which singular values of a matrix of independent errors lie.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ntk_propulsion.theory.inputs import Array

COARSER = {
    torch.float64: (torch.bfloat16, torch.float16, torch.float32),
    torch.float32: (torch.bfloat16, torch.float16),
}
"""Types whose numbers a type holds all (float16) or, but for the range, most (bfloat16)."""
STANDS_OUT = 10.0
"""An update stands out of rounding from this many times rounding's energy on: what the noise can
hide of it, `MODEL` of the noise, is below 1%, and a full-rank update of that size would lift most
singular values above the edge. Ours; see tests/auditing/test_precisions.py."""
FEW = 1024
MODEL = 0.1
"""How far the energy of rounding may be from the expected: errors of entries that moved by less
than a spacing are not quite uniform. Ours, from the same simulations."""
STEPS = 16
"""How often an entry of an update may be rounded before it is added to the weight. Ours."""


@dataclass(frozen=True)
class Precision:
    """How numbers were stored before and after a tuning.

    Attributes:
        stored: The type that holds what came after; None where nobody knows how it was rounded.
        base: The type of what was before, where it is coarser and may have hidden an update.
    """

    stored: torch.dtype | None
    base: torch.dtype | None = None

    @property
    def is_known(self) -> bool:
        """Whether rounding is modelled."""
        return self.stored is not None

    def after(self, values: Array) -> Array:
        """Return the variance of the rounding error of each value after; NaN where not known."""
        if self.stored is None:
            return np.full(values.shape, np.nan)
        return variances(values, self.stored)

    def computing(self, energy: float) -> float:
        """Return the squared norm of the errors of an update that was computed in this precision.

        A product of factors rounds each of its sums, some more than once: `STEPS` roundings each.
        """
        if self.stored is None:
            return float("nan")
        return STEPS * torch.finfo(self.stored).eps ** 2 / 12 * energy

    def before(self, values: Array) -> Array:
        """Return that of each value before; 0 where what was before is what it was."""
        return np.zeros(values.shape) if self.base is None else variances(values, self.base)


def spacing(values: Array, dtype: torch.dtype) -> Array:
    """Return how far the next number of a type is from each value, in float64, any shape.

    Values beyond the type's range have the spacing that it would have there.
    """
    info = torch.finfo(dtype)
    exponents = np.frexp(np.abs(values))[1] - 1.0
    least = info.tiny * info.eps
    return np.maximum(np.where(values == 0, 0.0, np.exp2(exponents) * info.eps), least)


def variances(values: Array, dtype: torch.dtype) -> Array:
    """Return the variance of the rounding error of each stored value, any shape."""
    return np.asarray(spacing(values, dtype) ** 2 / 12)


def grid_of(values: Tensor) -> torch.dtype:
    """Return the coarsest type that holds every value: bfloat16 for what was widened from it."""
    few = values.reshape(-1)[:FEW]  # they rule most types out, without a copy of the rest
    for dtype in COARSER.get(values.dtype, ()):
        if all(torch.equal(part.to(dtype).to(part.dtype), part) for part in (few, values)):
            return dtype
    return values.dtype


def coarser(a: torch.dtype, b: torch.dtype) -> torch.dtype:
    """Return the type of the wider spacing."""
    return a if torch.finfo(a).eps >= torch.finfo(b).eps else b


@dataclass(frozen=True)
class RoundingNoise:
    """Expected squares of the rounding errors of a matrix.

    Attributes:
        energy: Of all entries together, E |E|**2.
        edge: Singular values of the errors lie below: the largest row's and the largest column's
            expected norms, added (of entries of one variance the edge of Marchenko and Pastur;
            in general the leading term of the bound of Bandeira and van Handel 2016).
    """

    energy: float
    edge: float

    @classmethod
    def of(cls, rows: Array, columns: Array) -> RoundingNoise:
        """Return that of expected squares summed by rows and by columns."""
        return cls(float(rows.sum()), float(np.sqrt(rows.max()) + np.sqrt(columns.max())))

    def rest(self, rank: int, shape: tuple[int, int]) -> float:
        """Return the energy that is expected outside the closest matrix of a rank.

        A direction that something larger fixed takes its row and its column of the errors away.
        """
        m, n = shape
        return self.energy * (1 - rank * (m + n - rank) / (m * n))


def looks_rounded(errors: Array, values: Array, dtype: torch.dtype) -> bool | None:
    """Tell whether differences are as large as rounding to a type would have left.

    Uniform errors over spacings have a mean square of 1/12 with a relative standard deviation of
    0.894 / sqrt(n): within three of these and 5%. Fewer than 16 differences do not tell: None.
    """
    moved = errors != 0
    n = int(moved.sum())
    if n < 16:
        return None
    squares = (errors[moved] / spacing(values[moved], dtype)) ** 2
    return bool(abs(12 * squares.mean() - 1) <= 0.05 + 3 * 0.894 / np.sqrt(n))
