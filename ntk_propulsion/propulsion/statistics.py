"""Statistics of scaling vectors: where z went, what gain z**k that makes, how alike two are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.models.roles import role_of
from ntk_propulsion.propulsion.layers import check_degree
from ntk_propulsion.propulsion.wrap import scalings

NEAR_ONE = (0.98, 1.02)
"""The range in which the paper finds z after training (App. F)."""
NEAR_ZERO = 0.01
"""Absolute gains below this count as near zero: the neuron is all but switched off, or dead."""
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
DEGREES = (1, 5, 15, 25, 35, 55)
"""Degrees that the paper and its public code use, for checkpoints that don't record theirs."""
OUTLIER = 3.5
"""Robust z-scores above this, in absolute value, are outliers (Iglewicz and Hoaglin, 1993)."""
MAD_TO_STD = 1.4826
"""Standard deviation over median absolute deviation, for Gaussian values."""
MEAN_TO_STD = 1.2533
"""Standard deviation over mean absolute deviation, for Gaussian values: sqrt(pi / 2)."""
TOTAL = "total"


class Moved(NamedTuple):
    """One entry of a scaling vector: its module, its output neuron, its value."""

    module: str
    neuron: int
    z: float


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


class LayerSimilarity(NamedTuple):
    """Cosines between the deviations z - 1 of all modules of one size.

    Attributes:
        modules: Their names, m of them.
        cosine: (m, m). NaN where a module did not move. Two unrelated directions of n entries have
            cosines of about 1 / sqrt(n) in absolute value.
    """

    modules: tuple[str, ...]
    cosine: Tensor


@dataclass(frozen=True)
class ScalingComparison:
    """How alike two trainings left one module's z, or all (module and role `TOTAL`).

    Attributes:
        module: The module's name in the plain model.
        role: Its role.
        n: The number of entries of z.
        cosine: Of z - 1, None where either did not move.
        correlation: Pearson's, of z, None where either is constant.
        relative_distance: |z - z_reference| / |z_reference - 1|, None where the reference did not
            move.
    """

    module: str
    role: str
    n: int
    cosine: float | None
    correlation: float | None
    relative_distance: float | None


Source = nn.Module | Mapping[str, Tensor]


class _Row(NamedTuple):
    """A module's vector or, under the name `TOTAL`, all of them end to end."""

    module: str
    role: str
    parts: dict[str, Tensor]
    z: Tensor

    def entries(self, indices: Iterable[int]) -> tuple[Moved, ...]:
        """Return the entries at these places of z, with their own modules and neurons."""
        return tuple(Moved(*self._place(index), float(self.z[index])) for index in indices)

    def _place(self, index: int) -> tuple[str, int]:
        for name, z in self.parts.items():
            if index < len(z):
                return name, index
            index -= len(z)
        raise IndexError(index)


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
    vectors, degree = _vectors(source, degree)
    return [_statistics(row, degree, top) for row in _rows(vectors)]


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
        for row in _rows(_vectors(source, None)[0])
        for degree in whole
    ]


def layer_similarity(source: Source) -> list[LayerSimilarity]:
    """Return how alike layers of equal size were scaled, one matrix per size, smallest size first.

    Args:
        source: As for `scaling_statistics`. Sizes that only one module has are left out.

    Raises:
        InputError: As `scaling_statistics`.
    """
    by_size: dict[int, dict[str, Tensor]] = {}
    for name, z in _vectors(source, None)[0].items():
        by_size.setdefault(len(z), {})[name] = z
    found = []
    for _, group in sorted(by_size.items()):
        if len(group) > 1:
            deviations = torch.stack(list(group.values())) - 1
            # 0 / 0 for a layer that did not move: a NaN says that it has no direction.
            directions = deviations / deviations.norm(dim=1, keepdim=True)
            cosine = (directions @ directions.T).clamp(-1, 1)
            found.append(LayerSimilarity(tuple(group), cosine))
    return found


def compare_scalings(source: Source, reference: Source) -> list[ScalingComparison]:
    """Return how alike two trainings left z, a row per module and a last one over all.

    Args:
        source: One training, as for `scaling_statistics`.
        reference: The other, of the same modules.

    Raises:
        InputError: As `scaling_statistics`; or where modules or their sizes differ.
    """
    ours, theirs = _vectors(source, None)[0], _vectors(reference, None)[0]
    for name in [*theirs, *ours]:
        sizes = [None if name not in each else len(each[name]) for each in (ours, theirs)]
        if sizes[0] != sizes[1]:
            raise InputError(
                f"{name} has {sizes[0] or 'no'} scalings in one and {sizes[1] or 'no'} in the "
                "other: compare trainings of one model at one set of positions"
            )
    in_order = {name: theirs[name] for name in ours}
    return [_comparison(a, b.z) for a, b in zip(_rows(ours), _rows(in_order), strict=True)]


def robust_scores(z: Tensor) -> tuple[Tensor, float, float]:
    """Return the modified z-scores of Iglewicz and Hoaglin, with their median and spread.

    (z - median) / (1.4826 MAD), MAD the median absolute deviation from the median. Where more than
    half of the entries are equal, MAD is 0 and 1.2533 times the mean absolute deviation takes its
    place; where all are, every score is 0.

    Args:
        z: (n,).
    """
    centre = z.quantile(0.5)
    deviation = (z - centre).abs()
    spread = MAD_TO_STD * float(deviation.quantile(0.5)) or MEAN_TO_STD * float(deviation.mean())
    scores = (z - centre) / spread if spread else torch.zeros_like(z)
    return scores, float(centre), spread


def effective_number(deviation: Tensor) -> float:
    """Return over how many entries a deviation (n,) spreads: (sum d**2)**2 / sum d**4.

    The participation ratio of its squares, from 1 (a single entry) to n (all alike), 0 for no
    deviation.
    """
    largest = deviation.abs().max()
    if largest == 0:
        return 0.0
    squares = (deviation / largest) ** 2
    return float(squares.sum() ** 2 / (squares**2).sum())


def gini(sizes: Tensor) -> float:
    """Return the Gini coefficient of sizes (n,) >= 0: 0 for all equal, 1 - 1/n for a single one."""
    total = sizes.sum()
    if total == 0:
        return 0.0
    n = len(sizes)
    ranks = torch.arange(1, n + 1, dtype=sizes.dtype)
    return max(0.0, float(((2 * ranks - n - 1) * sizes.sort().values).sum() / (n * total)))


def scaling_of_gains(gains: Tensor, degree: float) -> Tensor:
    """Return the real z (d_out,) with z**degree = gains.

    The positive root of a positive gain; the negative one of a negative gain at an odd degree, and
    NaN at an even degree, which makes no negative gain.

    Raises:
        InputError: The degree is not a whole number of at least 1.
    """
    degree = check_degree(degree)
    gains = torch.as_tensor(gains, dtype=torch.float64)
    root = gains.abs() ** (1 / degree)
    return torch.where(gains >= 0, root, -root if degree % 2 else torch.nan)


def _vectors(source: Source, degree: float | None) -> tuple[dict[str, Tensor], int | None]:
    asked = None if degree is None else check_degree(degree)
    if isinstance(source, nn.Module):
        found = scalings(source)
        for name, scaling in found.items():
            asked = scaling.degree if asked is None else asked
            if scaling.degree != asked:
                raise InputError(f"{name} has degree {scaling.degree}, not {asked}")
        source = {name: scaling.pooled() for name, scaling in found.items()}
    if not source:
        raise InputError("no scaling vectors: wrap the model, or give vectors by module name")
    return {name: _vector(name, z) for name, z in source.items()}, asked


def _vector(name: str, z: Tensor) -> Tensor:
    z = torch.as_tensor(z).detach().to("cpu", torch.float64)
    if z.ndim != 1 or z.numel() == 0:
        raise InputError(f"scaling of {name} has shape {tuple(z.shape)}, not (d_out,)")
    if not z.isfinite().all():
        raise InputError(f"scaling of {name} holds NaN or infinite values")
    return z


def _rows(vectors: dict[str, Tensor]) -> list[_Row]:
    rows = [_Row(name, role_of(name), {name: z}, z) for name, z in vectors.items()]
    return [*rows, _Row(TOTAL, TOTAL, vectors, torch.cat(list(vectors.values())))]


def _statistics(row: _Row, degree: int | None, top: int) -> ScalingStatistics:
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


def _gain(row: _Row, degree: int, near_one: tuple[float, float], top: int) -> GainStatistics:
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


def _outliers(row: _Row, top: int) -> Outliers:
    scores, median, spread = robust_scores(row.z)
    count = int((scores.abs() > OUTLIER).sum())
    furthest = row.entries(_largest(scores.abs(), min(top, count)))
    return Outliers(median, spread, count, furthest)


def _comparison(row: _Row, reference: Tensor) -> ScalingComparison:
    moved, expected = row.z - 1, reference - 1
    size = float(expected.norm())
    return ScalingComparison(
        module=row.module,
        role=row.role,
        n=row.z.numel(),
        cosine=_cosine(moved, expected),
        correlation=_cosine(_centred(row.z), _centred(reference)),
        relative_distance=float((moved - expected).norm()) / size if size else None,
    )


def _cosine(a: Tensor, b: Tensor) -> float | None:
    sizes = float(a.norm() * b.norm())
    return min(max(float(a @ b) / sizes, -1.0), 1.0) if sizes else None


def _centred(z: Tensor) -> Tensor:
    """Take the mean off; a constant vector becomes zero, not its rounding."""
    return z - z.mean() if (z != z[0]).any() else torch.zeros_like(z)


def _largest(sizes: Tensor, top: int) -> list[int]:
    return sizes.argsort(descending=True, stable=True)[:top].tolist()


def _share_in(values: Tensor, bounds: tuple[float, float]) -> float:
    low, high = bounds
    return float(((values >= low) & (values <= high)).double().mean())
