"""How a kernel is going to be computed: rounds of passes, chunks of examples, memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Plan:
    """Rounds of passes, and how many examples a pass takes.

    Attributes:
        groups: Keys of the sites of each round.
        chunk: Examples a pass takes at once.
        budget: Bytes allowed beside the model.
        expected: Bytes expected at the peak, by what holds them.
    """

    groups: tuple[frozenset[tuple[Any, ...]], ...]
    chunk: int
    budget: int
    expected: dict[str, int]

    def __str__(self) -> str:
        gib = 2**30
        held = ", ".join(f"{what} {size / gib:.2f}" for what, size in self.expected.items())
        total = sum(self.expected.values()) / gib
        return (
            f"{len(self.groups)} round(s) of passes, {self.chunk} examples a pass; expected peak "
            f"{total:.2f} GiB beside the model ({held}), budget {self.budget / gib:.2f} GiB"
        )
