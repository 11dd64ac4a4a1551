"""Counts in the one line that a kernel says of itself."""


def plural(count: int, noun: str) -> str:
    """Write a count with its noun: 1 example, 2 examples."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def short_count(value: int) -> str:
    """Write a count in three digits: 22.7M, 86.0k, 384."""
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**4, "k")):
        if value >= size:
            return f"{value / (1000 if unit == 'k' else size):.1f}{unit}"
    return str(value)
