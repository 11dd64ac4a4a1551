"""What follows from the measurements: targets reached, and ratios to full fine-tuning."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from analysis.cost.settings import Settings
from analysis.framework.rules import Estimate
from analysis.framework.tables import Row

RESAMPLES = 10000
FEWEST = 6  # rounds: the range of n values covers the median with probability 1 - 2**(1 - n)


def targets(rows: Sequence[Row], share: float) -> list[Row]:
    """Return when each method's metric first reached the target, by seed.

    The target lies so far on the way from before training to the best of full fine-tuning. There
    is none where full fine-tuning does not get above its start; it is not reached (None) where a
    method's metric stays below it.
    """
    races = [row for row in rows if row["kind"] == "race"]
    found: list[Row] = []
    for seed in dict.fromkeys(row["seed"] for row in races):
        own = [row for row in races if row["seed"] == seed]
        full = [row["value"] for row in own if row["method"] == "full"]
        if not full or not max(full) > full[0]:
            continue
        target = full[0] + share * (max(full) - full[0])
        for name in dict.fromkeys(row["method"] for row in own):
            there = (row for row in own if row["method"] == name and row["value"] >= target - 1e-9)
            first = next(there, {})
            when = {"steps": first.get("steps"), "seconds": first.get("seconds")}
            best = max(row["value"] for row in own if row["method"] == name)
            about = {"kind": "target", "method": name, "seed": seed, "value": target}
            found.append({**about, **when, "best": best})
    return found


QUANTITIES = {
    "size": ("parameters", "gradient_bytes", "state_bytes"),
    "time": ("step_seconds", "forward_seconds", "step_joules"),
    "memory": ("rise_bytes", "peak_bytes"),
}


def summary(rows: Sequence[Row], settings: Settings) -> list[Row]:
    """Return the median of each method's rounds, with the least and the greatest."""
    found: list[Row] = []
    for name in settings.methods:
        for kind, quantities in QUANTITIES.items():
            for quantity in quantities:
                values = list(by_round(rows, kind, name, quantity).values())
                if values:
                    ends = {"low": min(values), "high": max(values), "rounds": len(values)}
                    value = {"quantity": quantity, "value": float(np.median(values))}
                    found.append({"kind": "summary", "method": name, **value, **ends})
    return found


def by_round(rows: Sequence[Row], kind: str, method: str, quantity: str) -> dict[int, float]:
    """Return a quantity of a method by round; those without it are left out."""
    return {
        row.get("round") or 0: float(row[quantity])
        for row in rows
        if row["kind"] == kind and row["method"] == method and row.get(quantity) is not None
    }


Statistic = Callable[..., np.ndarray]


def ratio_of_medians(one: np.ndarray, other: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return the ratio of medians over an axis."""
    return np.asarray(np.median(one, axis=axis) / np.median(other, axis=axis))


def median_of_ratios(one: np.ndarray, other: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return the median over an axis of ratios, round by round."""
    return np.asarray(np.median(one / other, axis=axis))


def compared(
    rows: Sequence[Row], kind: str, quantity: str, other: str, statistic: Statistic
) -> Estimate | None:
    """Return Propulsion's quantity over another method's, with its 95% bootstrap over rounds.

    Both are resampled together, by round. Fewer than `FEWEST` rounds bracket no median at 95%:
    the interval is infinite. None where either was not measured.
    """
    ours, theirs = (by_round(rows, kind, name, quantity) for name in ("propulsion", other))
    shared = sorted(ours.keys() & theirs.keys())
    if not shared:
        return None
    a, b = (np.array([values[turn] for turn in shared]) for values in (ours, theirs))
    value = float(statistic(a, b))
    if len(shared) < FEWEST:
        return Estimate(value, -np.inf, np.inf)
    drawn = stats.bootstrap(
        (a, b),
        statistic,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Estimate(value, float(drawn.low), float(drawn.high))
