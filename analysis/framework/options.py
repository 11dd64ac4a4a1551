"""A study's settings, and the command line that follows from them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import click

from ntk_propulsion.commands.command_line import Names
from ntk_propulsion.errors import InputError

PACKAGED = ("rotten-tomatoes", "imdb")
"""Tasks that come with a package and take no data folder."""


def folder_of(task: str, data: str | None) -> str | None:
    """Return the data folder that a task is read from, None for one that needs none."""
    return None if task in PACKAGED else data


def glue_folder() -> str | None:
    """Return the folder of GLUE tasks that is there without being asked for, or None.

    The environment variable NTK_GLUE_DIR names it; else it is shared/data/glue beside the project.

    Raises:
        InputError: The variable names no folder.
    """
    named = os.environ.get("NTK_GLUE_DIR")
    folder = Path(named or Path(__file__).parents[3] / "shared" / "data" / "glue")
    if named and not folder.is_dir():
        raise InputError(f"NTK_GLUE_DIR is {named}, which is no folder: correct or unset it")
    return str(folder) if folder.is_dir() else None


def option(default: Any, meaning: str) -> Any:
    """Return a field of a study's settings: its default, and what ``--help`` says of it."""
    return field(default=default, metadata={"help": meaning})


@dataclass(frozen=True)
class Settings:
    """What every study's results depend on; a study adds its own fields."""

    model: str = option("minilm", "minilm, a Hugging Face folder, or a hub id.")
    data: str | None = option(None, "Folder of GLUE tasks in their original TSV layout.")
    examples: int = option(48, "N, examples of each kernel.")
    seeds: int = option(3, "How often the study repeats, each time with other examples and order.")
    degree: int = option(15, "Propulsion's k: gains are z**k.")
    outputs: str = option("logits", "Kernels of logits, margin or sum.")
    device: str = option("cpu", "cpu, cuda, cuda:1 ...")
    memory: str = option("2.5GiB", "For the kernels, beside the model.")


@dataclass(frozen=True)
class Tuned(Settings):
    """What studies that fine-tune depend on too."""

    head: str = option("probe", "probe, random or checkpoint.")
    steps: int = option(40, "Steps of each fine-tuning.")
    batch_size: int = option(16, "Examples a step.")
    learning_rate: float = option(1e-3, "Peak learning rate of Propulsion (AdamW, linear decay).")
    probe_examples: int = option(1000, "Training examples to fit the head on.")
    test_examples: int = option(600, "Test examples that the metric is measured on.")


@dataclass(frozen=True)
class Training(Tuned):
    """What studies that fine-tune on one task depend on too."""

    task: str = option("", "The task.  [default: sst2 with --data, else rotten-tomatoes]")

    @property
    def task_name(self) -> str:
        """The task, as it was asked for or by what data there is."""
        return self.task or ("sst2" if self.data else "rotten-tomatoes")


def options_of(settings: type[Settings], quick: Iterable[str]) -> list[click.Option]:
    """Return one option for each field of a study's settings; those of ``--quick`` say so."""
    changed = set(quick)
    made: list[click.Option] = []
    for part in fields(settings):
        default: Any = part.default
        several = isinstance(default, tuple)
        kind: Any = str if default is None or several else type(default)
        text = part.metadata["help"]
        if several:
            shown = ",".join(map(str, default))
            number = type(default[0]) if default else str
            text += f"  [default: {shown}]"
            callback = _several(default, number)
            made.append(Names([_flag(part.name)], help=text, default=None, callback=callback))
            continue
        if default not in (None, ""):
            text += f"  [default: {default}{'; less with --quick' if part.name in changed else ''}]"
        made.append(click.Option([_flag(part.name)], help=text, default=None, type=kind))
    return made


def _several(default: tuple[Any, ...], kind: type) -> Any:
    """Return what turns the words of an option into the numbers or names that a field holds."""

    def convert(context: click.Context, option: click.Parameter, words: tuple[str, ...]) -> Any:
        try:
            return tuple(kind(word) for word in words) or None
        except ValueError as error:
            raise click.BadParameter(f"{error}", context, option) from error

    return convert


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
