"""Distances by width, a curve a seed, and their slopes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.framework.rules import log_slope
from analysis.framework.study import Row

NETWORKS = ("mlp", "bert")
ALL, REST, SPANNED = "all parameters", "without head", "scaled modules alone"
WHOLE = (ALL, REST, SPANNED)
PROPULSION, REDRAWN = "propulsion", "independent weights"
DISTANCES = {"best_scale_error": "best-scale error", "cka_distance": "1 - unbiased CKA"}
DISTANCE, SLOPE, IDENTITY = "distance", "slope", "identity"


Key = tuple[str, str, str]  # network, tuning, group
Curves = dict[Key, dict[int, dict[int, float]]]  # by seed, then width


def curves(rows: Sequence[Row], distance: str) -> Curves:
    """Return a distance by network, tuning and group, by seed, by width.

    Of several modules in a group it is the geometric mean.
    """
    logs: dict[Key, dict[int, dict[int, list[float]]]] = {}
    for row in (row for row in rows if row["kind"] == DISTANCE):
        key = row["network"], row["tuning"], row["group"]
        by_width = logs.setdefault(key, {}).setdefault(row["seed"], {})
        by_width.setdefault(row["width"], []).append(np.log(row[distance]))
    return {
        key: {
            seed: {width: float(np.exp(np.mean(found))) for width, found in by_width.items()}
            for seed, by_width in by_seed.items()
        }
        for key, by_seed in logs.items()
    }


def slopes(rows: Sequence[Row]) -> list[Row]:
    """Return the slope of every curve."""
    found = []
    for distance in DISTANCES:
        for (network, tuning, group), by_seed in curves(rows, distance).items():
            estimate = log_slope(by_seed)
            several = len(by_seed) > 1
            found.append(
                {
                    "kind": SLOPE,
                    "network": network,
                    "tuning": tuning,
                    "group": group,
                    "distance": distance,
                    "slope": estimate.value,
                    "low": estimate.low if several else None,
                    "high": estimate.high if several else None,
                }
            )
    return found
