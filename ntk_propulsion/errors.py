"""Errors that are meant for people: what was wrong, where, and how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """What the caller gave cannot be used. Command lines print it as one line and exit with 2."""


def unknown(what: str, name: str, known: Iterable[str]) -> InputError:
    """Return the error for a name that is not among the known ones, near matches first.

    Args:
        what: The kind of thing, e.g. ``"task"``.
        name: What the caller wrote.
        known: The names that exist.

    Examples:
        >>> print(unknown("tuning", "lore", ["full", "lora"]))
        unknown tuning 'lore': did you mean lora?
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names)}"
    return InputError(f"unknown {what} {name!r}: {hint}")


def shown(text: object) -> str:
    r"""Return a stranger's text for an error message: quoted, on one line, cut at 80 characters.

    Examples:
        >>> shown("two\nlines"), shown([1, 2])
        ("'two\\nlines'", "'list'")
    """
    quoted = repr(text if isinstance(text, str) else type(text).__name__)
    return quoted if len(quoted) <= 80 else f"{quoted[:76]}...'"
