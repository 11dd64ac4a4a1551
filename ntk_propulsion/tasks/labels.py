"""Labels as they are written: words, or numbers of which no digit is lost."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable
from numbers import Number

from ntk_propulsion.errors import shown

# Not all that float() reads: it takes 1_0 for 10, and digits of every script.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_INFINITE = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)
# 01 is left alone: a code, not the number 1.
_WHOLE = re.compile(r"([+-]?)(0|[1-9]\d*)(\.0*)?", re.ASCII)
_HIDDEN = ("Cc", "Cs")


def label_text(value: object) -> str:
    """Return a label as text, whole numbers without a decimal point (1.0 and 1 are one class).

    Args:
        value: What stands in the table.

    Returns:
        The text; empty where a label is missing.

    Raises:
        ValueError: It is no label; says why.
    """
    if value is None:
        return ""
    if not isinstance(value, str | Number):
        raise ValueError(f"{_words(value)} is no label: give each example one word or number")
    text = str(value).strip()
    hidden = next((c for c in text if c == "\ufeff" or unicodedata.category(c) in _HIDDEN), None)
    if hidden is not None:
        raise ValueError(f"label {shown(text)} holds the character U+{ord(hidden):04X}")
    if text.lower() == "nan":
        return ""
    whole = _WHOLE.fullmatch(text)
    if whole is None:
        return text
    sign, digits, _ = whole.groups()
    return f"-{digits}" if sign == "-" and digits != "0" else digits


def number_of(text: str) -> float:
    """Return the number that a text writes, NaN if it writes none."""
    if _NUMBER.fullmatch(text) or _INFINITE.fullmatch(text):
        return float(text)
    return math.nan


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return different names in the order of their numbers, or of the alphabet."""
    different = set(names)
    if all(math.isfinite(number_of(name)) for name in different):
        return tuple(sorted(different, key=_size))
    return tuple(sorted(different))


def _size(text: str) -> tuple[float, int, str]:
    """Return what sorts numbers, whole ones that are one float by their digits."""
    whole = _WHOLE.fullmatch(text)
    return number_of(text), int(text) if whole and not whole[3] else 0, text


def _words(value: object) -> str:
    known: dict[type, str] = {list: "a list", tuple: "a list", dict: "an object"}
    return known.get(type(value), f"a value of type {type(value).__name__}")
