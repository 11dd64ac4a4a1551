"""Statistics of scaling vectors: where z went, and what gain z**k that makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ntk_propulsion.errors import InputError
from ntk_propulsion.propulsion.layers import check_degree
from ntk_propulsion.propulsion.spread import effective_number, gini, robust_scores
from ntk_propulsion.propulsion.vectors import Moved, Row, Source, read_vectors, rows_of

NEAR_ONE = (0.98, 1.02)
"""The range in which the paper finds z after training (App. F)."""
NEAR_ZERO = 0.01
"""Absolute gains below this count as near zero: the neuron is all but switched off, or dead."""
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
DEGREES = (1, 5, 15, 25, 35, 55)
"""Degrees that the paper and its public code use, for checkpoints that don't record theirs."""
OUTLIER = 3.5
"""Robust z-scores above this, in absolute value, are outliers (Iglewicz and Hoaglin, 1993)."""


@dataclass(frozen=True)
class GainStatistics:
    """Statistics of the gains z**degree of one module.

    A narrow range of z is not a narrow range of gains: 0.98**15 = 0.739, 1.02**15 = 1.346.

    Attributes:
        degree: The power that the gains were computed with.
        mean: Their mean.
        min: The smallest, sign included.
        max: The largest.
        share_near_one: The share inside `near_one`, bounds included.
        near_zero: How many are below `NEAR_ZERO` in absolute value: the dead neurons.
        dead: Those of them nearest to zero, nearest first.
        near_one: The range that counts as near one.
    """

    degree: int
    mean: float
    min: float
    max: float
    share_near_one: float
    near_zero: int
    dead: tuple[Moved, ...] = ()
    near_one: tuple[float, float] = NEAR_ONE


@dataclass(frozen=True)
class Outliers:
    """Entries of z that stand out from the others of their row, by `robust_scores`.

    Attributes:
        median: The centre that they are measured from.
        spread: What a score of 1 is, in units of z; 0 where all entries are equal.
        count: How many scores exceed `OUTLIER` in absolute value.
        furthest: The furthest of these, furthest first.
    """

    median: float
    spread: float
    count: int
    furthest: tuple[Moved, ...]


@dataclass(frozen=True)
class ScalingStatistics:
    """Statistics of the scaling vector of one module, or of all (module and role `TOTAL`).

    Attributes:
        module: The module's name in the plain model.
        role: Its role, as `ntk_propulsion.models.roles.role_of` names it.
        n: The number of entries of z.
        mean: Mean of z.
        std: Standard deviation of z over its entries (divided by n).
        min: Smallest entry.
        max: Largest entry.
        quantiles: Of z, at `QUANTILES`.
        share_near_one: The share of z inside `NEAR_ONE`, bounds included.
        sign_changes: How many entries are negative, where z starts positive.
        gain: Statistics of the gains, None where the degree is unknown (see `gains_by_degree`).
        moved: The entries furthest from 1, furthest first.
        outliers: The entries that stand out.
        effective_moved: Over how many entries the deviation from 1 spreads (`effective_number`).
        gini: How unequal the absolute deviations from 1 are (`gini`).
    """

    module: str
    role: str
    n: int
    mean: float
    std: float
    min: float
    max: float
    quantiles: tuple[float, ...]
    share_near_one: float
    sign_changes: int
    gain: GainStatistics | None
    moved: tuple[Moved, ...]
    outliers: Outliers
    effective_moved: float
    gini: float


class ModuleGains(NamedTuple):
    """What a module's gains would be if the degree were ``gain.degree``."""

    module: str
    role: str
    gain: GainStatistics


def scaling_statistics(
    source: Source, degree: float | None = None, top: int = 5
) -> list[ScalingStatistics]:
    """Return one row per module, in the source's order, and a last row over all of them.

    Args:
        source: A wrapped model, or scaling vectors (d_out,) by module name, e.g. from a checkpoint.
            Where a layer has several vectors, their pool counts: what scales.
        degree: The power k, for vectors alone: no checkpoint of the public code records it. None
            means unknown, and the rows then have no gains. A wrapped model knows its own.
        top: How many to list of the neurons that moved most, of outliers and of dead neurons.

    Raises:
        InputError: There is no scaling vector, one is not a vector or not finite, or the degree
            is not a whole number of at least 1 or not the model's.
    """
    vectors, degree = read_vectors(source, degree)
    return [_statistics(row, degree, top) for row in rows_of(vectors)]


def gains_by_degree(
    source: Source,
    degrees: Sequence[float] = DEGREES,
    near_one: tuple[float, float] = NEAR_ONE,
    top: int = 5,
) -> list[ModuleGains]:
    """Return what the gains would be at each degree, for vectors whose degree is unknown.

    Args:
        source: As for `scaling_statistics`. A wrapped model's own degree plays no part.
        degrees: Degrees to try.
        near_one: The range of gains whose share is wanted, bounds included.
        top: How many dead neurons to list.

    Returns:
        Every degree of the first module, then of the next; last those of all modules.

    Raises:
        InputError: As `scaling_statistics`; or for an empty range.
    """
    low, high = near_one
    if not low <= high:
        raise InputError(f"the range ({low}, {high}) of gains is empty: give its lower end first")
    whole = [check_degree(degree) for degree in degrees]
    return [
        ModuleGains(row.module, row.role, _gain(row, degree, near_one, top))
        for row in rows_of(read_vectors(source, None)[0])
        for degree in whole
    ]


def _statistics(row: Row, degree: int | None, top: int) -> ScalingStatistics:
    z = row.z
    return ScalingStatistics(
        module=row.module,
        role=row.role,
        n=z.numel(),
        mean=float(z.mean()),
        std=float(z.std(correction=0)),
        min=float(z.min()),
        max=float(z.max()),
        quantiles=tuple(torch.quantile(z, torch.tensor(QUANTILES, dtype=z.dtype)).tolist()),
        share_near_one=_share_in(z, NEAR_ONE),
        sign_changes=int((z < 0).sum()),
        gain=None if degree is None else _gain(row, degree, NEAR_ONE, top),
        moved=row.entries(_largest((z - 1).abs(), top)),
        outliers=_outliers(row, top),
        effective_moved=effective_number(z - 1),
        gini=gini((z - 1).abs()),
    )


def _gain(row: Row, degree: int, near_one: tuple[float, float], top: int) -> GainStatistics:
    gain = row.z**degree
    near_zero = int((gain.abs() < NEAR_ZERO).sum())
    return GainStatistics(
        degree=degree,
        mean=float(gain.mean()),
        min=float(gain.min()),
        max=float(gain.max()),
        share_near_one=_share_in(gain, near_one),
        near_zero=near_zero,
        dead=row.entries(_largest(-row.z.abs(), min(top, near_zero))),
        near_one=near_one,
    )


def _outliers(row: Row, top: int) -> Outliers:
    scores, median, spread = robust_scores(row.z)
    count = int((scores.abs() > OUTLIER).sum())
    furthest = row.entries(_largest(scores.abs(), min(top, count)))
    return Outliers(median, spread, count, furthest)


def _largest(sizes: Tensor, top: int) -> list[int]:
    return sizes.argsort(descending=True, stable=True)[:top].tolist()


def _share_in(values: Tensor, bounds: tuple[float, float]) -> float:
    low, high = bounds
    return float(((values >= low) & (values <= high)).double().mean())
