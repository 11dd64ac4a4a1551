"""Numbers as people read them: figures that matter, shares, counts; a dash where there is none."""

from __future__ import annotations

import math
from typing import SupportsFloat

MISSING = "—"
Number = SupportsFloat | None


def finite(value: Number) -> float | None:
    """Return a finite float, or None for anything missing, NaN or infinite."""
    if value is None or isinstance(value, str | bool):
        return None
    return float(value) if math.isfinite(value) else None


def number(value: Number, digits: int = 3) -> str:
    """Write a number with so many significant digits; a dash where there is none."""
    value = finite(value)
    if value is None:
        return MISSING
    if value == 0:
        return "0"
    if value == int(value) and abs(value) < 1e5:
        return str(int(value))
    if 1e-3 <= abs(value) < 1e5:
        decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        return f"{value:.{decimals}f}"
    return f"{value:.{digits - 1}e}"


def near_one(value: Number) -> str:
    """Write a similarity: rounding must not turn 0.9997 into 1."""
    value = finite(value)
    if value is None:
        return MISSING
    decimals = next((d for d in (3, 4, 5, 6) if round(value, d) < 1), 3)
    return f"{value:.{decimals}f}"


def percent(value: Number) -> str:
    """Write a share as a percentage."""
    value = finite(value)
    if value is None:
        return MISSING
    share = 100 * value
    if 99.95 <= share < 99.9995:
        return f"{share:.3f}%"
    return f"{share:.1f}%" if abs(share) < 10 or abs(share - 100) < 1 else f"{share:.0f}%"


def count(value: Number) -> str:
    """Write a count of parameters: 22.7 M, 86,018."""
    value = finite(value)
    if value is None:
        return MISSING
    return f"{value / 1e6:.1f} M" if value >= 1e6 else f"{value:,.0f}"


def plural(n: int, one: str, many: str | None = None) -> str:
    """Write a count with its noun: 1 tensor, 2 tensors."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"
