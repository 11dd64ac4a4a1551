"""What the fields of a dataclass mean, as its docstring or its options say it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_type_hints

from ntk_propulsion.runs.options import meaning_of

_FIELD = re.compile(r"^    (\w+): (.*)$")


def summary_of(form: type) -> str:
    """Return what a class is: its docstring without the list of attributes."""
    return inspect.cleandoc(form.__doc__ or "").partition("\nAttributes:")[0].strip()


def meanings(form: type) -> dict[str, str]:
    """Return what each field means, by name, those of base classes too; what nothing says is out.

    Args:
        form: A dataclass or a named tuple.
    """
    said: dict[str, str] = {}
    for each in reversed(form.__mro__):
        said |= dict(_attributes(inspect.cleandoc(vars(each).get("__doc__") or "")))
    if is_dataclass(form):
        said |= {part.name: meaning_of(part) for part in fields(form) if part.metadata}
    return said


def forms_within(form: Any) -> dict[str, type]:
    """Return a dataclass and all that its fields are made of, by name, in order of appearance."""
    found: dict[str, type] = {}
    _collect(form, found)
    return found


def _collect(form: Any, found: dict[str, type]) -> None:
    for inner in get_args(form):
        _collect(inner, found)
    named = isinstance(form, type) and (is_dataclass(form) or hasattr(form, "_fields"))
    if named and form.__name__ not in found:
        found[form.__name__] = form
        for hint in get_type_hints(form).values():
            _collect(hint, found)


def _attributes(docstring: str) -> Iterator[tuple[str, str]]:
    """Return (name, meaning) of each entry of a docstring's list of attributes."""
    name = ""
    words: list[str] = []
    for line in docstring.partition("\nAttributes:\n")[2].splitlines():
        if entry := _FIELD.match(line):
            if name:
                yield name, " ".join(words)
            name, words = entry[1], [entry[2]]
        elif line.startswith("        "):
            words.append(line.strip())
        else:
            break
    if name:
        yield name, " ".join(words)
