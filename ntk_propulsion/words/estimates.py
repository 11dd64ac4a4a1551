"""Distances as people read them, with their intervals."""

from __future__ import annotations

from ntk_propulsion.theory.distances import DISTANCES
from ntk_propulsion.theory.estimate import Estimate
from ntk_propulsion.words.numbers import Number, finite, near_one, number

NOTHING = Estimate(None)


def show(name: str, value: Number) -> str:
    """Write a distance's value the way that suits the distance."""
    best = DISTANCES[name].best if name in DISTANCES else None
    if best == 1:
        return near_one(value)
    value = finite(value)
    if best == 0 and value and 0.01 <= value < 10:
        return f"{value:.3f}"
    return number(value)


def estimate(name: str, measured: Estimate | None) -> str:
    """Write a distance as ``value [low, high]``, or the value alone; a dash where there is none.

    Args:
        name: The distance's, as `theory.distances` has it.
        measured: What it came to.
    """
    found = measured or NOTHING
    if found.low is None or found.high is None:
        return show(name, found.value)
    return f"{show(name, found.value)} [{show(name, found.low)}, {show(name, found.high)}]"
