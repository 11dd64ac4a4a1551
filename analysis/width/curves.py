"""Distances by width, a curve a seed, and their slopes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.framework.rules import log_slope
from analysis.framework.tables import Row, table_of, where

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
    table = table_of(where(rows, kind=DISTANCE))
    keys = ["network", "tuning", "group", "seed", "width"]
    found: Curves = {}
    if table.empty:
        return found
    logs = np.log(table[distance]).groupby([table[key] for key in keys], sort=False)
    for (network, tuning, group, seed, width), value in np.exp(logs.mean()).items():
        found.setdefault((network, tuning, group), {}).setdefault(seed, {})[width] = value
    return found


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
