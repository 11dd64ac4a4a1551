"""Numbers and nouns in sentences."""

from __future__ import annotations


def plural(n: int, one: str, many: str | None = None) -> str:
    """Return a count with its noun: 1 tensor, 2 tensors."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"
