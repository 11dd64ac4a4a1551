"""A model with its tokenizer, as everything else takes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Head = Literal["probe", "random", "checkpoint"]
"""Where a classifier comes from."""


@dataclass(frozen=True)
class LoadedModel:
    """A model with its tokenizer.

    Attributes:
        model: A sequence classifier in evaluation mode; one output for a regression.
        tokenizer: Its tokenizer, padding on the right.
        name: The name it was asked for by.
        source: Where it came from, in words.
        notes: What the user should know, a sentence each.
    """

    model: Any
    tokenizer: Any
    name: str
    source: str
    notes: list[str] = field(default_factory=list)
