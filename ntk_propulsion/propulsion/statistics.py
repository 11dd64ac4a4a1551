"""Statistics of scaling vectors: where z went, and what gain z**k that makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.propulsion.layers import check_degree
from ntk_propulsion.propulsion.wrap import scalings
from ntk_propulsion.roles import role_of

NEAR_ONE = (0.98, 1.02)
"""The range in which the paper finds z after training (App. F)."""
NEAR_ZERO = 0.01
"""Absolute gains below this count as near zero: the neuron is all but switched off."""
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
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
        share_near_one: The share inside `NEAR_ONE`, bounds included.
        near_zero: How many are below `NEAR_ZERO` in absolute value.
    """

    degree: int
    mean: float
    min: float
    max: float
    share_near_one: float
    near_zero: int


@dataclass(frozen=True)
class ScalingStatistics:
    """Statistics of the scaling vector of one module, or of all (module and role `TOTAL`).

    Attributes:
        module: The module's name in the plain model.
        role: Its role, as `ntk_propulsion.roles.role_of` names it.
        n: The number of entries of z.
        mean: Mean of z.
        std: Standard deviation of z over its entries (divided by n).
        min: Smallest entry.
        max: Largest entry.
        quantiles: Of z, at `QUANTILES`.
        share_near_one: The share of z inside `NEAR_ONE`, bounds included.
        sign_changes: How many entries are negative, where z starts positive.
        gain: Statistics of the gains, None where the degree is unknown.
        moved: The entries furthest from 1, furthest first.
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


def scaling_statistics(
    source: nn.Module | Mapping[str, Tensor], degree: float | None = None, top: int = 5
) -> list[ScalingStatistics]:
    """Return one row per module, in the source's order, and a last row over all of them.

    Args:
        source: A wrapped model, or scaling vectors (d_out,) by module name, e.g. from a checkpoint.
        degree: The power k, for vectors alone: no checkpoint of the public code records it. None
            means unknown, and the rows then have no gains. A wrapped model knows its own.
        top: How many of the neurons that moved most to list.

    Raises:
        InputError: There is no scaling vector, one is not a vector or not finite, or the degree
            is not a whole number of at least 1 or not the model's.
    """
    vectors, degree = _vectors(source, degree)
    if not vectors:
        raise InputError("no scaling vectors: wrap the model, or give vectors by module name")
    rows = []
    for name, z in vectors.items():
        moved = tuple(Moved(name, index, float(z[index])) for index in _furthest(z, top))
        rows.append(_row(name, role_of(name), z, degree, moved))
    most = sorted((each for row in rows for each in row.moved), key=lambda each: -abs(each.z - 1))
    rows.append(_row(TOTAL, TOTAL, torch.cat(list(vectors.values())), degree, tuple(most[:top])))
    return rows


def _vectors(
    source: nn.Module | Mapping[str, Tensor], degree: float | None
) -> tuple[dict[str, Tensor], int | None]:
    asked = None if degree is None else check_degree(degree)
    if not isinstance(source, nn.Module):
        return {name: _vector(name, z) for name, z in source.items()}, asked
    found = scalings(source)
    for name, scaling in found.items():
        asked = scaling.degree if asked is None else asked
        if scaling.degree != asked:
            raise InputError(f"{name} has degree {scaling.degree}, not {asked}")
    return {name: _vector(name, scaling.z) for name, scaling in found.items()}, asked


def _vector(name: str, z: Tensor) -> Tensor:
    z = torch.as_tensor(z).detach().to("cpu", torch.float64)
    if z.ndim != 1 or z.numel() == 0:
        raise InputError(f"scaling of {name} has shape {tuple(z.shape)}, not (d_out,)")
    if not z.isfinite().all():
        raise InputError(f"scaling of {name} holds NaN or infinite values")
    return z


def _furthest(z: Tensor, top: int) -> list[int]:
    return (z - 1).abs().argsort(descending=True, stable=True)[:top].tolist()


def _row(
    name: str, role: str, z: Tensor, degree: int | None, moved: tuple[Moved, ...]
) -> ScalingStatistics:
    return ScalingStatistics(
        module=name,
        role=role,
        n=z.numel(),
        mean=float(z.mean()),
        std=float(z.std(correction=0)),
        min=float(z.min()),
        max=float(z.max()),
        quantiles=tuple(torch.quantile(z, torch.tensor(QUANTILES, dtype=z.dtype)).tolist()),
        share_near_one=_share_near_one(z),
        sign_changes=int((z < 0).sum()),
        gain=None if degree is None else _gain(z**degree, degree),
        moved=moved,
    )


def _gain(gain: Tensor, degree: int) -> GainStatistics:
    return GainStatistics(
        degree=degree,
        mean=float(gain.mean()),
        min=float(gain.min()),
        max=float(gain.max()),
        share_near_one=_share_near_one(gain),
        near_zero=int((gain.abs() < NEAR_ZERO).sum()),
    )


def _share_near_one(values: Tensor) -> float:
    low, high = NEAR_ONE
    return float(((values >= low) & (values <= high)).double().mean())
