"""What a form of checkpoint is, and the registry that `ntk_propulsion.conversion.forms` fills."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ntk_propulsion.conversion.entries import Entry
from ntk_propulsion.conversion.scaled import ScaledModel


@dataclass(frozen=True)
class Folder:
    """What a folder is to hold.

    Attributes:
        entries: The tensors by name.
        config: The content of the configuration beside them.
        config_name: That file's name.
        stem: Of the names of the tensors' files.
        tokenizer: Whether the tokenizer goes with them.
    """

    entries: Mapping[str, Entry]
    config: Mapping[str, Any] = field(default_factory=dict)
    config_name: str = "config.json"
    stem: str = "model"
    tokenizer: bool = True


Express = Callable[[ScaledModel], Folder | bytes]
"""Expresses a model in a form, as a folder or a file; InputError if the form cannot express it."""


@dataclass(frozen=True)
class Form:
    """A form of checkpoint to convert into.

    Attributes:
        words: The form in words.
        express: Says what is to be written.
        dialect: The dialect in which checkpoints of this form are read; None if no vectors show.
        folder: Whether it is a folder, or a file.
    """

    words: str
    express: Express
    dialect: str | None
    folder: bool


FORMS: dict[str, Form] = {}
"""What there is to convert into, by name."""


def register(
    name: str, words: str, *, dialect: str | None = None, folder: bool = True
) -> Callable[[Express], Express]:
    """Register a function that expresses models in a form, as a decorator.

    Args:
        name: Of the form, as `--to` takes it.
        words: The form in words.
        dialect: The dialect in which checkpoints of this form are read.
        folder: Whether it is a folder, or a file.
    """

    def registered(express: Express) -> Express:
        FORMS[name] = Form(words, express, dialect, folder)
        return express

    return registered
