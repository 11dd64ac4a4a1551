"""What the command lines share: options, one clear line for bad input, progress, output."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as Bars

from ntk_propulsion.errors import InputError
from ntk_propulsion.runs.progress import Progress

F = TypeVar("F", bound=Callable[..., Any])
BAD_INPUT = 2
INTERRUPTED = 130  # as shells have it for Ctrl-C
LOOK: dict[str, Any] = {"show_default": True, "max_content_width": 100}
MEANINGS = {
    "model": "minilm, a Hugging Face folder, or a hub id.",
    "data": "Folder of GLUE tasks in their original TSV layout.",
    "examples": "N, examples of each kernel.",
    "degree": "Propulsion's k: gains are z**k.",
    "outputs": "Kernels of logits, margin or sum.",
    "seed": "Fixes everything.",
    "device": "cpu, cuda, cuda:1 ...",
    "dtype": "float32 or float64, for the kernels.",
    "memory": "For the kernels, beside the model.",
    "text-column": "Of a file or hub data set.",
    "pair-column": "Of a file or hub data set.",
    "label-column": "Of a file or hub data set.",
    "trust-remote-code": "Let code of the checkpoint run.",
    "out": "Folder of the results.",
    "overwrite": "Replace earlier results in --out.",
    "resume": "Finish an interrupted run in --out; show a finished one.",
}
"""What each option means, in every command that has it."""


def shared(name: str, more: str = "", **options: Any) -> Callable[[F], F]:
    """Give a command an option that others have too, in the same words.

    Args:
        name: One of `MEANINGS`.
        more: What only this command has to say of it.
        **options: As `click.option` takes them.
    """
    return click.option(f"--{name}", help=f"{MEANINGS[name]} {more}".strip(), **options)


@dataclass(frozen=True)
class Output:
    """What a command tells of its work: tables, or one JSON document, or only where it lies.

    Attributes:
        as_json: stdout gets the JSON document and nothing else.
        quiet: No progress, and no tables.
    """

    as_json: bool = False
    quiet: bool = False

    def progress(self) -> ProgressBar:
        """Return the bar that shows an experiment's steps, or hides them."""
        return ProgressBar(quiet=self.quiet)

    def console(self) -> Console:
        """Return where tables go; they go nowhere if they were not wanted."""
        return Console(highlight=False, quiet=self.quiet or self.as_json)

    def end(self, place: Path | str, document: str) -> None:
        """Print where the results are, or the results.

        Args:
            place: The file or folder that a person wants to open.
            document: All results, as JSON.
        """
        if self.as_json:
            click.echo(document.rstrip())
        else:
            place = f"[bold]{escape(str(place))}[/bold]"
            Console(highlight=False).print(place, soft_wrap=True)


def with_output(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``--json`` and ``--quiet``, which reach it as ``output``, an `Output`."""

    @click.option("--json", "as_json", is_flag=True, help="Print the results as JSON on stdout.")
    @click.option("--quiet", is_flag=True, help="No progress, no tables: only where results are.")
    @functools.wraps(command)
    def inner(*args: Any, as_json: bool, quiet: bool, **options: Any) -> Any:
        return command(*args, output=Output(as_json, quiet), **options)

    return inner


class Interrupted(Exception):  # noqa: N818 (no error: somebody wanted it)
    """Somebody stopped a command; says how to go on."""


class Names(click.Option):
    """An option that takes several names, separated by commas or by spaces."""

    def type_cast_value(self, ctx: click.Context, value: Any) -> tuple[str, ...]:
        """Return the names."""
        return tuple(name for name in re.split(r"[,\s]+", value or "") if name)


class Command(click.Command):
    """A command whose `Names` options take all words up to the next option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Join the words of each such option before click reads them."""
        flags = {flag for p in self.params if isinstance(p, Names) for flag in p.opts}
        joined: list[str] = []
        for word in args:
            if len(joined) > 1 and joined[-2] in flags and not word.startswith("-"):
                joined[-1] += f",{word}"
            else:
                joined.append(word)
        return super().parse_args(ctx, joined)


def run_command(command: click.Command, arguments: list[str] | None = None) -> int:
    """Run a command and return its exit status.

    0 done; 2 bad input, with one line on stderr; 130 interrupted. Anything else is a bug of ours
    and shows its traceback.

    Args:
        command: The command.
        arguments: By default the process's own.
    """
    try:
        status = command.main(arguments, standalone_mode=False)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        return _say(f"error: {error.format_message()}", BAD_INPUT)
    except InputError as error:
        return _say(f"error: {error}", BAD_INPUT)
    except Interrupted as stop:
        return _say(f"interrupted: {stop}", INTERRUPTED)
    except click.Abort:
        return _say("interrupted", INTERRUPTED)
    return status if isinstance(status, int) else 0


def _say(text: str, status: int) -> int:
    """Write one line on stderr, whatever stands in the text."""
    print(" ".join(text.split()), file=sys.stderr)
    return status


class ProgressBar(Progress):
    """Shows each step of an experiment as a line with its time, on stderr; a context manager.

    A terminal gets bars, a log plain lines; with `quiet` neither gets anything.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.console = Console(stderr=True)
        self.bars = Bars(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self.console,
            disable=quiet or not self.console.is_terminal,
        )
        self.current: TaskID | None = None

    def __enter__(self) -> ProgressBar:
        self.bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._finish()
        self.bars.stop()

    def begin(self, what: str, total: int | None = None) -> None:
        """End the current line and begin another."""
        self._finish()
        self.current = self.bars.add_task(what, total=total)
        if not (self.quiet or self.console.is_terminal):
            print(what, file=sys.stderr, flush=True)

    def advance(self, done: int, total: int | None = None) -> None:
        """Set how much of the current line is done."""
        if self.current is not None:
            self.bars.update(self.current, completed=done, total=total)

    def _finish(self) -> None:
        if self.current is not None:
            total = self.bars.tasks[self.current].total or 1
            self.bars.update(self.current, total=total, completed=total)
            self.bars.stop_task(self.current)
