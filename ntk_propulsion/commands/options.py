"""Options of a command, from dataclasses: a field is an option, its type what may be given.

What a field means is said by `ntk_propulsion.runs.options`, so that every command that has the
option explains it in the same words.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import click

from ntk_propulsion.runs.options import meaning_of

T = TypeVar("T")
LOOK: dict[str, Any] = {"max_content_width": 100}
NOTHING_SAID: Mapping[str, str] = {}


class Words(click.Option):
    """An option that takes several values, separated by commas or by spaces."""

    def __init__(self, *declarations: Any, of: type = str, **settings: Any) -> None:
        super().__init__(*declarations, **settings)
        self.of = click.types.convert_type(of)

    def type_cast_value(self, ctx: click.Context, value: Any) -> tuple[Any, ...] | None:
        """Return the values; None where the option is not given."""
        if value is None:
            return None
        words = (word for word in re.split(r"[,\s]+", value) if word)
        return tuple(self.of.convert(word, self, ctx) for word in words)


class Command(click.Command):
    """A command whose `Words` options take all words up to the next option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Join the words of each such option before click reads them."""
        flags = {flag for p in self.params if isinstance(p, Words) for flag in p.opts}
        joined: list[str] = []
        for word in args:
            if len(joined) > 1 and joined[-2] in flags and not word.startswith("-"):
                joined[-1] += f",{word}"
            else:
                joined.append(word)
        return super().parse_args(ctx, joined)


def command(
    defaults: Mapping[str, str] = NOTHING_SAID, /, **parts: type
) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a function a command: its options fill dataclasses, which it takes by these names.

    Args:
        defaults: What ``--help`` says of defaults that only this command knows, by field.
        **parts: The dataclasses, in the order of their options.
    """

    def make(action: Callable[..., Any]) -> click.Command:
        @functools.wraps(action)
        def act(**given: Any) -> Any:
            chosen: dict[str, Any] = {name: build(part, given) for name, part in parts.items()}
            return action(**chosen, **given)

        params = [option for part in parts.values() for option in options_of(part, defaults)]
        return click.command(cls=Command, params=params, context_settings=LOOK)(act)

    return make


def options_of(part: type, defaults: Mapping[str, str] = NOTHING_SAID) -> list[click.Parameter]:
    """Return one option for each field of a dataclass; it gives None where it is not given.

    Args:
        part: The dataclass. A field without a default is required; one of several values takes
            them with commas or spaces, or, if its metadata says ``repeated``, one each time.
        defaults: What ``--help`` says of a default instead of the field's own, by field.
    """
    hints = get_type_hints(part)
    return [
        _option(each, hints[each.name], defaults.get(each.name, default_of(each)))
        for each in fields(part)
    ]


def default_of(part: Field[Any]) -> str:
    """Return what ``--help`` says of a field's default; nothing where it says nothing."""
    default = part.default
    if unset := part.metadata.get("unset"):
        return str(unset)
    if isinstance(default, bool):
        return part.name.replace("_", "-") if default else ""
    if default is MISSING or default in (None, "", ()):
        return ""
    return ", ".join(map(str, default)) if isinstance(default, tuple) else str(default)


def build(part: type[T], given: dict[str, Any]) -> T:
    """Return the dataclass that values make, of those given by its fields, which are taken out."""
    own = {each.name: given.pop(each.name, None) for each in fields(part)}  # type: ignore[arg-type]
    return part(**{name: value for name, value in own.items() if value is not None})


def flag(name: str) -> str:
    """Return how a field is written on the command line."""
    return f"--{name.replace('_', '-')}"


def _option(part: Field[Any], hint: Any, default: str) -> click.Option:
    """Return the option of a field of this type, whose default reads so."""
    value = _value_of(hint)
    text = _meaning(part)
    said: dict[str, Any] = {
        "help": text + (f"  [default: {default}]" if default else ""),
        "required": part.default is MISSING,
    }
    if value is bool:
        no = f"/--no-{part.name.replace('_', '-')}" if part.default else ""
        return click.Option(
            [flag(part.name) + no, part.name], is_flag=True, default=part.default, **said
        )
    if get_origin(hint) is not tuple:
        return click.Option([flag(part.name), part.name], type=value, **said)
    if part.metadata.get("repeated"):
        return click.Option([flag(part.name), part.name], type=value, multiple=True, **said)
    return Words([flag(part.name), part.name], of=value, **said)


def _meaning(part: Field[Any]) -> str:
    """Return what a field means, with the names that there are."""
    text = meaning_of(part)
    if "{tasks}" in text:
        from ntk_propulsion.tasks import known_tasks  # only where they are named

        text = text.replace("{tasks}", ", ".join(known_tasks()))
    return text


def _value_of(hint: Any) -> Any:
    """Return the type of one value: a tuple's items', an optional's own."""
    if get_origin(hint) is Literal:
        return str  # what it may be is the settings' own check, which names the nearest
    inner = [each for each in get_args(hint) if each not in (NoneType, Ellipsis)]
    return _value_of(inner[0]) if inner else hint
