"""How a kernel is going to be computed: rounds of passes, chunks of examples, memory."""

from __future__ import annotations

import re
from dataclasses import dataclass

import psutil
import torch

from ntk_propulsion.errors import InputError

SHARE_OF_FREE = 0.5
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


def parse_memory(memory: str | int | None, device: torch.device) -> int:
    """Return a budget in bytes: ``"8GiB"``, a number of bytes, or half of what is free.

    Examples:
        >>> parse_memory("1.5 GB", torch.device("cpu"))
        1500000000

    Raises:
        InputError: The text is not a size.
    """
    if memory is None:
        if device.type == "cuda":
            return int(SHARE_OF_FREE * torch.cuda.mem_get_info(device)[0])
        return int(SHARE_OF_FREE * psutil.virtual_memory().available)
    if isinstance(memory, int):
        return memory
    match = re.fullmatch(r"\s*([\d.]+)\s*([kmg]i?)?b?\s*", memory.lower())
    if match is None:
        raise InputError(f"memory {memory!r} is not a size: write it like '8GiB'")
    return int(float(match[1]) * _UNITS[match[2] or ""])


@dataclass(frozen=True)
class Plan:
    """Rounds of passes, and how many examples a pass takes.

    Attributes:
        groups: Keys of the sites of each round.
        chunk: Examples a pass takes at once.
        budget: Bytes allowed beside the model.
        expected: Bytes expected at the peak, by what holds them.
    """

    groups: tuple[frozenset[tuple], ...]
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
