"""Errors that are meant for people: what was wrong, where, and how to mend it.

Also what may be shown of a stranger's text: `plain` and `one_line` are what every way out of the
package (errors, terminal, pages, CSV) puts texts through.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import fields, is_dataclass, replace
from typing import Any

LONGEST = 280
"""Characters of an error: with what a command line puts before it, under 300."""
_NAMES = 1000
"""Known names among which near ones are looked for."""


class InputError(ValueError):
    """What the caller gave cannot be used. Command lines print it as one line and exit with 2.

    Whatever it quotes, it is one line of `LONGEST` printable characters at most.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def plain(text: str) -> str:
    r"""Return a text whose every character can be seen: what would act on its reader is spelt out.

    Control characters, marks of direction and of no width, lone surrogates and characters of
    private use become escapes, every kind of white space a space.

    Examples:
        >>> plain("a\x1b[31mred")
        'a\\x1b[31mred'
    """
    return text if text.isprintable() else "".join(map(_visible, text))


def plainly(value: Any) -> Any:
    """Return results with every text in them `plain`: dataclasses, sequences, mappings of them."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, list | tuple):
        seen = map(plainly, value)
        return type(value)(*seen) if hasattr(value, "_fields") else type(value)(seen)
    if isinstance(value, dict):
        return {plainly(key): plainly(item) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        inner = {each.name: getattr(value, each.name) for each in fields(value) if each.init}
        return replace(value, **{name: plainly(item) for name, item in inner.items()})
    return value


def _visible(character: str) -> str:
    if character.isprintable():
        return character
    return " " if character.isspace() else character.encode("unicode_escape").decode()


def one_line(text: str, longest: int = LONGEST) -> str:
    """Return a text as `plain`, on one line; a long one loses its middle: advice stands last."""
    whole = len(text)
    if whole > 4 * longest:  # of a gigabyte of text only what is shown is looked at
        text = text[: 2 * longest] + text[-2 * longest :]
    line = " ".join(plain(text).split())
    if len(line) <= longest and whole == len(text):
        return line
    head = longest * 2 // 3
    return f"{line[:head]} ... {line[head + 5 - longest :]}"


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
    near = difflib.get_close_matches(name[:100], names[:_NAMES], n=3, cutoff=0.5)
    if near:
        hint = f"did you mean {' or '.join(each[:60] for each in near)}?"
    else:
        hint = f"known: {', '.join(names[:_NAMES]) or 'none'}"
    return InputError(f"unknown {what} {shown(name)}: {hint}")


def shown(text: object) -> str:
    r"""Return a stranger's text for an error message: quoted, on one line, cut at 80 characters.

    Examples:
        >>> shown("two\nlines"), shown([1, 2])
        ("'two\\nlines'", "'list'")
    """
    quoted = repr(text[:100] if isinstance(text, str) else type(text).__name__)
    return quoted if len(quoted) <= 80 else f"{quoted[:76]}...'"
