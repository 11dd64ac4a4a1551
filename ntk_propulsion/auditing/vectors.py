"""Statistics of a checkpoint's scaling vectors, and of two checkpoints' against each other."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ntk_propulsion.auditing.checkpoint import ScalingVectors
from ntk_propulsion.auditing.subject import Subject
from ntk_propulsion.auditing.tables import (
    Alike,
    Gains,
    SimilarLayers,
    VectorComparison,
    VectorStatistics,
)
from ntk_propulsion.errors import InputError
from ntk_propulsion.models.roles import role_of
from ntk_propulsion.propulsion import (
    DEGREES,
    NEAR_ONE,
    OUTLIER,
    TOTAL,
    GainStatistics,
    LayerSimilarity,
    ScalingComparison,
    ScalingStatistics,
    compare_scalings,
    gains_by_degree,
    layer_similarity,
    scaling_statistics,
)
from ntk_propulsion.words import finite

Vectors = Mapping[str, Tensor]
CLOSE = 0.9
"""Cosines from here on, in absolute value, are listed as layers that moved alike."""


MOST_ALIKE = 2000
"""Layers of a size that are compared two by two, at most."""


def vector_results(subject: Subject, degrees: tuple[int, ...] = DEGREES) -> ScalingVectors | None:
    """Return the statistics of the scaling vectors of Propulsion or IA3.

    Args:
        subject: The checkpoint.
        degrees: What to try where the degree is unknown.

    Returns:
        None where the checkpoint has no scaling vectors.
    """
    if not subject.vectors:
        return None
    vectors = {name: z for name, z in subject.vectors.items() if z.isfinite().all()}
    left_out = tuple(name for name in subject.vectors if name not in vectors)
    lost = sum(subject.vectors[name].numel() for name in left_out)
    degree = subject.degree
    if not vectors:
        return ScalingVectors(degree, left_out, NEAR_ONE, OUTLIER, entries_left_out=lost)
    statistics = scaling_statistics(vectors, degree)
    roles = dict.fromkeys(role_of(name) for name in vectors)
    few = _few(vectors)
    by_degree = [found for found in gains_by_degree(vectors, degrees) if found.module == TOTAL]
    return ScalingVectors(
        degree,
        left_out,
        NEAR_ONE,
        OUTLIER,
        modules=tuple(_described(s) for s in statistics[:-1]),
        roles=tuple(_of_role(vectors, role, degree) for role in roles),
        total=_described(statistics[-1]),
        by_degree=tuple(Gains(**_gains(found.gain)) for found in by_degree),
        similarity=tuple(_similar(g, few) for g in layer_similarity(few)) if few else (),
        entries_left_out=lost,
    )


def _few(vectors: Vectors) -> Vectors:
    """Return the vectors of the sizes that no more than `MOST_ALIKE` layers share.

    Every pair of them has a cosine: of a hundred thousand layers no memory holds all.
    """
    sizes = Counter(len(z) for z in vectors.values())
    return {name: z for name, z in vectors.items() if sizes[len(z)] <= MOST_ALIKE}


def _of_role(vectors: Vectors, role: str, degree: int | None) -> VectorStatistics:
    """Return the statistics of all vectors of a role, end to end."""
    chosen = {name: z for name, z in vectors.items() if role_of(name) == role}
    return replace(_described(scaling_statistics(chosen, degree)[-1]), module=role, role=role)


def _described(s: ScalingStatistics) -> VectorStatistics:
    return VectorStatistics(
        module=s.module,
        role=s.role,
        n=s.n,
        mean=finite(s.mean),
        std=finite(s.std),
        min=s.min,
        max=s.max,
        share_in_range=s.share_near_one,
        sign_changes=s.sign_changes,
        outliers=s.outliers.count,
        furthest=s.outliers.furthest,
        effective_moved=finite(s.effective_moved),
        gini=finite(s.gini),
        most_moved=s.moved,
        **(_gains(s.gain) if s.gain else {}),
    )


def _gains(gain: GainStatistics) -> dict[str, Any]:
    """Return the fields that `Gains` and `VectorStatistics` share."""
    return {
        "degree": gain.degree,
        "gain_mean": finite(gain.mean),
        "gain_min": finite(gain.min),
        "gain_max": finite(gain.max),
        "gain_share_in_range": gain.share_near_one,
        "dead": gain.near_zero,
        "dead_neurons": gain.dead,
    }


def _similar(group: LayerSimilarity, vectors: Vectors) -> SimilarLayers:
    """Return the cosines between layers of one size, and which pairs moved most alike."""
    cosine, size = group.cosine.numpy(), len(vectors[group.modules[0]])
    first, second = np.triu_indices(len(group.modules), 1)
    values = cosine[first, second]
    order = [i for i in np.argsort(-np.abs(np.nan_to_num(values))) if abs(values[i]) >= CLOSE]
    some = np.isfinite(values).any()
    return SimilarLayers(
        size=size,
        modules=group.modules,
        cosine=tuple(tuple(map(finite, row)) for row in cosine.tolist()),
        mean_absolute=float(np.nanmean(np.abs(values))) if some else None,
        chance=float(size**-0.5),
        alike=tuple(
            Alike(group.modules[first[i]], group.modules[second[i]], float(values[i]))
            for i in order[:5]
        ),
    )


def compare_vectors(subjects: Mapping[str, Vectors]) -> tuple[VectorComparison, ...]:
    """Compare the vectors of every two checkpoints, all modules together, then each.

    Args:
        subjects: Vectors by the checkpoint's name.
    """
    pairs = itertools.combinations(subjects, 2)
    return tuple(row for a, b in pairs for row in _pair(a, b, subjects[a], subjects[b]))


def _pair(first: str, second: str, a: Vectors, b: Vectors) -> list[VectorComparison]:
    shared = [name for name in a if name in b and a[name].shape == b[name].shape]
    shared = [name for name in shared if torch.isfinite(a[name]).all() and b[name].isfinite().all()]
    lone = len(a.keys() ^ b.keys())
    try:
        found = compare_scalings({n: b[n] for n in shared}, {n: a[n] for n in shared})
    except InputError:
        return [VectorComparison(first, second, TOTAL, 0, only_in_one=lone)]
    rows = [_compared(first, second, each) for each in [found[-1], *found[:-1]]]
    return [replace(rows[0], only_in_one=lone), *rows[1:]]


def _compared(first: str, second: str, each: ScalingComparison) -> VectorComparison:
    return VectorComparison(
        first,
        second,
        each.module,
        each.n,
        finite(each.cosine),
        finite(each.correlation),
        finite(each.relative_distance),
    )
