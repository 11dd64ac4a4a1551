"""Frozen dataclasses as JSON and back: the one place where results become text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import msgspec
import numpy as np

from ntk_propulsion.errors import InputError
from ntk_propulsion.runs.meanings import forms_within, meanings, summary_of

T = TypeVar("T")
INDENT = 1
_UNSEEN = re.compile(r"[^\n -~]")
"""What may not be printable: all but the line ends between values and plain ASCII."""
_PLACE = re.compile(r" - at `(?P<place>\$[^`]*)`$")


class Dataclass(Protocol):
    """Any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


def to_json(obj: Any) -> str:
    """Write an object as indented JSON that any reader accepts, with a newline at its end.

    Args:
        obj: A dataclass, or tuples, lists, dicts with plain keys, numbers, texts and paths, nested;
            numpy's numbers and arrays are written as Python's.

    Returns:
        Strict JSON: NaN and infinity become null. Characters that would steer a terminal or turn
        the direction of reading are written as escapes.

    Raises:
        TypeError: Something in it is none of these.
    """
    try:
        written = msgspec.json.encode(obj, enc_hook=_plain)
    except UnicodeEncodeError:  # half a surrogate pair, of a path's odd byte for one: spelt out
        written = msgspec.json.encode(_encodable(msgspec.to_builtins(obj, enc_hook=_plain)))
    text = msgspec.json.format(written, indent=INDENT).decode()
    return seen(text) + "\n"


def seen(document: str) -> str:
    """Return the same JSON with all that would act on a terminal as escapes."""
    return _UNSEEN.sub(_escaped, document)


def from_json(form: type[T], text: str | bytes) -> T:
    """Read what `to_json` wrote of an object of this type; unknown keys are passed over.

    Raises:
        InputError: The text is not JSON, or not of such an object; it says where.
    """
    try:
        # What is passed over is not decoded: a byte there that is no text is refused here.
        known = text.decode() if isinstance(text, bytes) else text
        return msgspec.json.decode(known, type=form, dec_hook=_restored)
    except msgspec.ValidationError as error:
        raise InputError(_in_words(str(error))) from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InputError(f"no whole JSON ({error})") from error


def from_plain(form: type[T], value: Any) -> T:
    """Return an object of a type from what a JSON reader gives; unknown keys are passed over.

    Raises:
        InputError: It is not of such an object; it says where.
    """
    try:
        return msgspec.convert(value, form, dec_hook=_restored)
    except msgspec.ValidationError as error:
        raise InputError(_in_words(str(error))) from error
    except UnicodeError as error:  # Python's reader lets half a surrogate pair pass
        raise InputError(f"a text of it is none ({error})") from error


def schema(form: type) -> dict[str, Any]:
    """Return the JSON schema of a dataclass; docstrings say what it and its fields are."""
    written = msgspec.json.schema(form, schema_hook=_schema)
    for name, inner in forms_within(form).items():
        described = written["$defs"].get(name, {})
        described["description"] = summary_of(inner)
        properties = described.get("properties", {})
        for field, meaning in meanings(inner).items():
            if field in properties:
                properties[field]["description"] = meaning
    return written


def _escaped(found: re.Match[str]) -> str:
    return found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1]


def _encodable(value: Any) -> Any:
    """Return plain data whose texts can be encoded."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(item) for item in value]
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Path | str):  # a subclass of str, such as torch's version
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"no JSON for a {type(value).__name__}")


def _restored(form: type, value: Any) -> Any:
    if form is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"no {form.__name__} from JSON")


def _schema(form: type) -> dict[str, Any]:
    if form is Path:
        return {"type": "string"}
    raise TypeError(f"no JSON schema of a {form.__name__}")


def _in_words(message: str) -> str:
    """Put the place of an error first, without the signs of a path: ``results.kernels[0]``."""
    place = _PLACE.search(message)
    said = message[: place.start()] if place else message
    said = said.replace("`", "")
    said = said[:1].lower() + said[1:]
    return f"{place['place'].removeprefix('$').removeprefix('.')}: {said}" if place else said
