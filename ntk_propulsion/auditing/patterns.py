"""A stranger's regular expressions, matched in bounded time.

Python's own matcher tries every way through a pattern, one after another, which takes for ever on
some. Here all ways are followed at once, as the set of places that they have reached, over the
syntax tree that Python's parser makes: the same language for what is taken, and nothing else is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

from ntk_propulsion.auditing.inapplicable import InapplicableError
from ntk_propulsion.errors import shown

LONGEST = 500
"""Characters of a pattern that are read at most."""
STEPS = 200_000
"""Nodes of the tree that are visited at most, all repetitions counted."""
_CATEGORIES: dict[Any, Callable[[str], bool]] = {
    op.CATEGORY_DIGIT: str.isdecimal,
    op.CATEGORY_NOT_DIGIT: lambda c: not c.isdecimal(),
    op.CATEGORY_SPACE: str.isspace,
    op.CATEGORY_NOT_SPACE: lambda c: not c.isspace(),
    op.CATEGORY_WORD: lambda c: c.isalnum() or c == "_",
    op.CATEGORY_NOT_WORD: lambda c: not (c.isalnum() or c == "_"),
}
_PLACES: dict[Any, Callable[[int, int], bool]] = {
    op.AT_BEGINNING: lambda at, end: at == 0,
    op.AT_BEGINNING_STRING: lambda at, end: at == 0,
    op.AT_END: lambda at, end: at == end,
    op.AT_END_STRING: lambda at, end: at == end,
}


class _UnknownError(Exception):
    """Something in a pattern that is not matched here: a back reference, a look-around, a flag."""


def matches(pattern: str, text: str) -> bool:
    """Tell whether a pattern matches the whole of a text of one line, as `re.fullmatch` does.

    Raises:
        InapplicableError: It is no pattern, or one that is not matched in bounded time here.
    """
    try:
        return len(text) in _Walk(text).through(_tree(pattern), {0})
    except (re.error, _UnknownError, RecursionError, OverflowError, ValueError):
        raise InapplicableError(
            f"the pattern {shown(pattern)} cannot be matched safely: write names of modules"
        ) from None


def _tree(pattern: str) -> Any:
    tree = parser.parse(pattern) if len(pattern) <= LONGEST else None
    if tree is None or tree.state.flags & ~re.UNICODE:
        raise _UnknownError
    return tree


def first_match(patterns: Sequence[str], module: str) -> str | None:
    """Return the first pattern that PEFT takes for a module's, as its `get_pattern_key` does.

    Raises:
        InapplicableError: A pattern before it is not matched in bounded time here.
    """
    for pattern in patterns:
        matches(pattern, "")  # one that closes the bracket put around it is refused
        if matches(rf"(.*\.)?({pattern})$", module):
            return pattern
    return None


class _Walk:
    """All ways through a pattern over one text."""

    def __init__(self, text: str) -> None:
        self.text, self.left = text, STEPS

    def through(self, nodes: Sequence[tuple[Any, Any]], places: set[int]) -> set[int]:
        """Return the places that are reached from `places` through nodes, one after another."""
        for kind, value in nodes:
            self.left -= 1 + len(places)
            if self.left < 0:
                raise _UnknownError
            places = self._step(kind, value, places)
            if not places:
                break
        return places

    def _step(self, kind: Any, value: Any, places: set[int]) -> set[int]:
        if kind is op.AT and value in _PLACES:
            return {at for at in places if _PLACES[value](at, len(self.text))}
        if kind is op.BRANCH:
            return set().union(*(self.through(each, places) for each in value[1]))
        if kind is op.SUBPATTERN and not value[1] and not value[2]:
            return self.through(value[3], places)
        if kind in (op.MAX_REPEAT, op.MIN_REPEAT):
            least, most, inner = value
            return self._repeated(least, most, inner, places)
        return {at + 1 for at in places if at < len(self.text) and _one(kind, value, self.text[at])}

    def _repeated(self, least: int, most: int, inner: Any, places: set[int]) -> set[int]:
        """Return the places after `least` to `most` times: a set that comes again stays."""
        for _ in range(least):
            after = self.through(inner, places)
            if after == places:
                break
            places = after
        found, last = set(places), places
        for _ in range(most - least):
            last = self.through(inner, last) - found
            if not last:
                break
            found |= last
        return found


def _one(kind: Any, value: Any, character: str) -> bool:
    """Tell whether a node takes one character."""
    if kind is op.LITERAL:
        return ord(character) == value
    if kind is op.NOT_LITERAL:
        return ord(character) != value
    if kind is op.ANY:
        return character != "\n"
    if kind is not op.IN:
        raise _UnknownError
    negated = value[0][0] is op.NEGATE
    return negated != any(_member(k, v, character) for k, v in value[negated:])


def _member(kind: Any, value: Any, character: str) -> bool:
    if kind is op.RANGE:
        return value[0] <= ord(character) <= value[1]
    if kind is op.CATEGORY and value in _CATEGORIES:
        return _CATEGORIES[value](character)
    return _one(kind, value, character)
