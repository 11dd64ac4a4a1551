"""Fields of settings that say what they mean: command lines derive their options from them."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def option(default: Any, meaning: str, *, unset: str = "") -> Any:
    """Return a dataclass field with its default and, in its metadata, its help.

    Args:
        default: Its default.
        meaning: What it is, in a sentence; ``metadata["help"]``.
        unset: What happens where it is not given, if the default does not say it;
            ``metadata["unset"]``.
    """
    return field(default=default, metadata={"help": meaning, "unset": unset})
