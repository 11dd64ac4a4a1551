"""What the command lines share: one clear line for bad input, progress, and the terminal."""

from __future__ import annotations

import re
import sys
from types import TracebackType
from typing import Any

import click
from rich.console import Console
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
from ntk_propulsion.experiment import Progress

BAD_INPUT = 2
INTERRUPTED = 130  # as shells have it for Ctrl-C


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
    """Shows each step of an experiment as a line with its time, on stderr; a context manager."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.bars = Bars(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
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
        if not self.console.is_terminal:  # a log gets plain lines
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
