"""What a source of tasks is, and the registry of them: `ntk_propulsion.tasks.sources` fills it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ntk_propulsion.errors import unknown
from ntk_propulsion.tasks.kinds import Kind
from ntk_propulsion.tasks.task import Task


@dataclass(frozen=True)
class Request:
    """Which task, and how to read it: what `ntk_propulsion.tasks.load_task` is asked for.

    Attributes:
        name: The task's name, a file, or ``hub:NAME``.
        data: A folder that the task is read from.
        text_column: The column of the texts.
        pair_column: The column of the second texts, if there are any.
        label_column: The column of the labels.
        kind: Settles whether labels are classes or targets.
        test_file: A second file, for the test split.
        test_split: The split to test on.
        seed: Fixes a hold-out.
    """

    name: str
    data: Path | None = None
    text_column: str = "text"
    pair_column: str | None = None
    label_column: str = "label"
    kind: Kind | None = None
    test_file: Path | None = None
    test_split: str | None = None
    seed: int = 0


Load = Callable[[Request], Task]


@dataclass(frozen=True)
class Source:
    """Where tasks come from.

    Attributes:
        load: Loads what is asked for; raises `ntk_propulsion.errors.InputError`.
        takes: Whether what is asked for comes from here.
        names: The tasks that have a name here.
        forms: How others are asked for, e.g. ``"hub:NAME"``.
        folder: Whether they may be read from a data folder.
    """

    load: Load
    takes: Callable[[Request], bool]
    names: tuple[str, ...] = ()
    forms: tuple[str, ...] = ()
    folder: bool = True


SOURCES: list[Source] = []


def register(
    *names: str,
    forms: Sequence[str] = (),
    takes: Callable[[Request], bool] | None = None,
    folder: bool = True,
) -> Callable[[Load], Load]:
    """Register a function that loads tasks, as a decorator.

    Args:
        names: The tasks that it loads by name.
        forms: How others are asked for, for the help and for errors.
        takes: Whether it loads what is asked for; by default what has one of the names.
        folder: Whether the tasks may be read from a data folder.
    """

    def registered(load: Load) -> Load:
        taken = takes or (lambda request: request.name in names)
        SOURCES.append(Source(load, taken, names, tuple(forms), folder))
        return load

    return registered


def source_of(request: Request) -> Source:
    """Return the source of a task; one that knows its name goes before one that knows its form.

    Raises:
        InputError: There is none; near matches are named.
    """
    for source in sorted(SOURCES, key=lambda source: not source.names):
        if source.takes(request):
            return source
    raise unknown("task", request.name, known_tasks())


def reads_folder(name: str) -> bool:
    """Return whether a task may be read from a data folder: not one that a package carries."""
    named = [source for source in SOURCES if name in source.names]
    return not named or any(source.folder for source in named)


def known_tasks() -> list[str]:
    """Return the names of tasks, then the forms in which others are asked for."""
    names = {name for source in SOURCES for name in source.names}
    return [*sorted(names), *(form for source in SOURCES for form in source.forms)]
