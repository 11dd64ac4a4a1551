"""The typed tables of this room as plain dictionaries, for what does not take them typed yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from ntk_propulsion.kernels import Kernel
from ntk_propulsion.measurements.distances import kernel_distances, kernel_drifts
from ntk_propulsion.measurements.modules import module_comparisons
from ntk_propulsion.measurements.parts import PARTS, parts_of, plain_module
from ntk_propulsion.measurements.summaries import kernel_summaries
from ntk_propulsion.propulsion import ScalingStatistics
from ntk_propulsion.theory.comparison import estimate_distances

__all__ = ["PARTS", "parts_of", "plain_module"]
Row = dict[str, Any]
Matrices = Mapping[str, Mapping[str, np.ndarray]]


def measured(K: np.ndarray, K0: np.ndarray, outputs: int, seed: int) -> Row:
    """Return `theory.comparison.estimate_distances` as a dictionary."""
    found = estimate_distances(K, K0, outputs, seed=seed)
    return {name: asdict(each) for name, each in found.items()}


def distance_rows(point: str, parts: Matrices, outputs: int, seed: int) -> list[Row]:
    """Return `distances.kernel_distances` as dictionaries."""
    return [asdict(row) for row in kernel_distances(point, parts, outputs, seed)]


def drift_rows(
    method: str, before: Matrices, after: Matrices, outputs: int, seed: int
) -> list[Row]:
    """Return `distances.kernel_drifts` as dictionaries."""
    return [asdict(row) for row in kernel_drifts(method, before, after, outputs, seed)]


def kernel_rows(
    point: str, kernels: Mapping[str, Kernel], parts: Matrices, targets: np.ndarray | None
) -> list[Row]:
    """Return `summaries.kernel_summaries` as dictionaries."""
    return [asdict(row) for row in kernel_summaries(point, kernels, parts, targets)]


def module_rows(
    point: str, full: Kernel, propulsion: Kernel, roles: Mapping[str, str]
) -> list[Row]:
    """Return `modules.module_comparisons` as dictionaries."""
    return [asdict(row) for row in module_comparisons(point, full, propulsion, roles)]


def point_tables(
    points: Mapping[str, Mapping[str, Kernel]],
    parts: Mapping[str, Matrices],
    targets: np.ndarray | None,
    roles: Mapping[str, str],
    seed: int,
) -> dict[str, list[Row]]:
    """Return the tables ``kernels``, ``distances`` and ``per_module`` over all points."""
    outputs = next(iter(points.values()))["full"].num_outputs
    each = [(point, by, parts[point]) for point, by in points.items()]
    return {
        "kernels": [row for p, by, of in each for row in kernel_rows(p, by, of, targets)],
        "distances": [row for p, _, of in each for row in distance_rows(p, of, outputs, seed)],
        "per_module": [
            row for p, by, _ in each for row in module_rows(p, by["full"], by["propulsion"], roles)
        ],
    }


def z_columns(s: ScalingStatistics) -> Row:
    """Return what every table of scaling vectors says of a module's z."""
    return {
        "module": s.module,
        "role": s.role,
        "n": s.n,
        "mean": s.mean,
        "std": s.std,
        "min": s.min,
        "max": s.max,
        "share_in_range": s.share_near_one,
        "sign_changes": s.sign_changes,
    }
