"""A measured number with the interval that it was measured to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A number and its interval.

    Attributes:
        value: The number; None where it is not defined.
        low: The interval's lower end; None where no interval was computed.
        high: Its upper end.
    """

    value: float | None
    low: float | None = None
    high: float | None = None


Estimates = dict[str, Estimate]
"""Distances by name, as `theory.distances` names them."""
