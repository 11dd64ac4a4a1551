"""What the command lines share: one clear line for bad input, progress, and the terminal."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from ntk_propulsion.errors import InputError
from ntk_propulsion.experiment import Progress

BAD_INPUT = 2
INTERRUPTED = 130


def run_command(command: click.Command, arguments: list[str] | None = None) -> int:
    """Run a command and return its exit status.

    0 done; 2 bad input, with one line on stderr; 130 interrupted. Anything else is a bug of ours
    and shows its traceback.
    """
    try:
        status = command.main(arguments, standalone_mode=False)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except (InputError, click.ClickException) as error:
        said = error.format_message() if isinstance(error, click.ClickException) else str(error)
        print(f"error: {' '.join(said.split())}", file=sys.stderr)
        return BAD_INPUT
    except (KeyboardInterrupt, click.Abort):
        print("interrupted: the same command with --resume finishes it", file=sys.stderr)
        return INTERRUPTED
    return status if isinstance(status, int) else 0


class ProgressBar(Progress):
    """Shows each step of an experiment as a line with its time, on stderr.

    Use as a context manager.
    """

    def __init__(self) -> None:
        columns: tuple[Any, ...] = (
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self.console = Console(stderr=True)
        self.bars = Bars(*columns, console=self.console)
        self.current: Any = None

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
        if not self.console.is_terminal:
            self.console.print(what)

    def advance(self, done: int) -> None:
        """Set how much of the current line is done."""
        self.bars.update(self.current, completed=done)

    def _finish(self) -> None:
        if self.current is not None:
            total = self.bars.tasks[self.current].total or 1
            self.bars.update(self.current, total=total, completed=total)
            self.bars.stop_task(self.current)
