"""Statistics of a checkpoint's scaling vectors, and of two checkpoints' against each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ntk_propulsion.auditing.subject import Subject
from ntk_propulsion.errors import InputError
from ntk_propulsion.measurements.rows import Row, z_columns
from ntk_propulsion.models.roles import role_of
from ntk_propulsion.propulsion.statistics import (
    DEGREES,
    NEAR_ONE,
    OUTLIER,
    TOTAL,
    GainStatistics,
    ScalingStatistics,
    compare_scalings,
    gains_by_degree,
    layer_similarity,
    scaling_statistics,
)

Vectors = Mapping[str, Tensor]
CLOSE = 0.9
"""Cosines from here on, in absolute value, are listed as layers that moved alike."""


def vector_results(subject: Subject, degrees: tuple[int, ...] = DEGREES) -> dict[str, Any] | None:
    """Return the statistics of the scaling vectors of Propulsion or IA3.

    Args:
        subject: The checkpoint.
        degrees: What to try where the degree is unknown.

    Returns:
        ``modules``, ``roles``, ``total``, ``by_degree``, ``similarity``, ``left_out``; None where
        the checkpoint has no scaling vectors.
    """
    vectors = subject.vectors
    if not vectors:
        return None
    finite = {name: z for name, z in vectors.items() if z.isfinite().all()}
    left_out = [name for name in vectors if name not in finite]
    if not finite:
        return {"degree": subject.degree, "left_out": left_out, "modules": [], "total": None}
    degree = subject.degree
    statistics = scaling_statistics(finite, degree)
    roles = dict.fromkeys(role_of(name) for name in finite)
    return {
        "degree": degree,
        "range": list(NEAR_ONE),
        "outlier_score": OUTLIER,
        "modules": [_row(s) for s in statistics[:-1]],
        "roles": [_row(_of_role(finite, role, degree)) | {"module": role} for role in roles],
        "total": _row(statistics[-1]),
        "by_degree": [_gain_row(found.gain) for found in _totals(finite, degrees)],
        "similarity": _similarity(finite),
        "left_out": left_out,
    }


def _of_role(vectors: Vectors, role: str, degree: int | None) -> ScalingStatistics:
    """Return the statistics of all vectors of a role, end to end."""
    chosen = {name: z for name, z in vectors.items() if role_of(name) == role}
    return scaling_statistics(chosen, degree)[-1]


def _totals(vectors: Vectors, degrees: tuple[int, ...]) -> list[Any]:
    return [found for found in gains_by_degree(vectors, degrees) if found.module == TOTAL]


def _row(s: ScalingStatistics) -> Row:
    row: Row = {
        **z_columns(s),
        "outliers": s.outliers.count,
        "furthest": [list(entry) for entry in s.outliers.furthest],
        "effective_moved": s.effective_moved,
        "gini": s.gini,
        "most_moved": [list(entry) for entry in s.moved],
    }
    return row | (_gain_row(s.gain) if s.gain else {})


def _gain_row(gain: GainStatistics) -> Row:
    return {
        "degree": gain.degree,
        "gain_mean": gain.mean,
        "gain_min": gain.min,
        "gain_max": gain.max,
        "gain_share_in_range": gain.share_near_one,
        "dead": gain.near_zero,
        "dead_neurons": [list(entry) for entry in gain.dead],
    }


def _similarity(vectors: Vectors) -> list[Row]:
    """Return the cosines between layers of each size, and which pairs moved most alike."""
    found = []
    for group in layer_similarity(vectors):
        cosine = group.cosine.numpy()
        upper = np.triu_indices(len(group.modules), 1)
        values = cosine[upper]
        order = [i for i in np.argsort(-np.abs(np.nan_to_num(values))) if abs(values[i]) >= CLOSE]
        found.append(
            {
                "size": len(vectors[group.modules[0]]),
                "modules": list(group.modules),
                "cosine": cosine.tolist(),
                "mean_absolute": float(np.nanmean(np.abs(values)))
                if np.isfinite(values).any()
                else None,
                "chance": float(len(vectors[group.modules[0]]) ** -0.5),
                "alike": [
                    [group.modules[upper[0][i]], group.modules[upper[1][i]], float(values[i])]
                    for i in order[:5]
                ],
            }
        )
    return found


def compare_vectors(subjects: Mapping[str, Vectors]) -> list[Row]:
    """Compare the vectors of every two checkpoints, all modules together, then each.

    Args:
        subjects: Vectors by the checkpoint's name.
    """
    rows: list[Row] = []
    names = list(subjects)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            rows += _pair(first, second, subjects[first], subjects[second])
    return rows


def _pair(first: str, second: str, a: Vectors, b: Vectors) -> list[Row]:
    shared = [name for name in a if name in b and a[name].shape == b[name].shape]
    shared = [name for name in shared if torch.isfinite(a[name]).all() and b[name].isfinite().all()]
    head: Row = {"first": first, "second": second}
    try:
        found = compare_scalings({n: b[n] for n in shared}, {n: a[n] for n in shared})
    except InputError:
        return [{**head, "module": TOTAL, "n": 0, "only_in_one": len(a.keys() ^ b.keys())}]
    rows = [
        {
            **head,
            "module": each.module,
            "n": each.n,
            "cosine": each.cosine,
            "correlation": each.correlation,
            "relative_distance": each.relative_distance,
        }
        for each in [found[-1], *found[:-1]]
    ]
    rows[0]["only_in_one"] = len(a.keys() ^ b.keys())
    return rows
