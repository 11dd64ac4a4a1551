"""What the command lines share: one clear line for bad input, progress, output."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import click
from rich.console import Console, ConsoleOptions, RenderableType
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
from rich.segment import Segment
from safetensors import SafetensorError

from ntk_propulsion.commands.signals import stoppable
from ntk_propulsion.errors import InputError, one_line, plain
from ntk_propulsion.runs.options import option
from ntk_propulsion.runs.progress import Progress
from ntk_propulsion.runs.records import seen

BAD_INPUT = 2
LINE = 299
"""Characters of a line on stderr at most."""


@dataclass(frozen=True)
class Output:
    """What a command tells of its work: tables, or one JSON document, or only where it lies."""

    json: bool = option(False, "Print the results as JSON on stdout, and nothing else.")
    quiet: bool = option(False, "No progress, no tables: only where results are.")

    def progress(self) -> ProgressBar:
        """Return the bar that shows an experiment's steps, or hides them."""
        return ProgressBar(quiet=self.quiet)

    def console(self) -> Console:
        """Return where tables go; they go nowhere if they were not wanted."""
        return PlainConsole(highlight=False, quiet=self.quiet or self.json)

    def end(self, place: Path | str, document: str) -> None:
        """Print where the results are, or the results.

        Args:
            place: The file or folder that a person wants to open.
            document: All results, as JSON.
        """
        if self.json:
            click.echo(seen(document.rstrip()))
        else:
            place = f"[bold]{escape(str(place))}[/bold]"
            PlainConsole(highlight=False).print(place, soft_wrap=True)


class PlainConsole(Console):
    """Shows texts as `ntk_propulsion.errors.plain` does: none of them steers the terminal."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render as rich does; what is no control of rich's own is made plain."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                lines = "\n".join(map(plain, segment.text.split("\n")))
                yield Segment(lines, segment.style)


class Interrupted(Exception):  # noqa: N818 (no error: somebody wanted it)
    """Somebody stopped a command; says how to go on."""


def run_command(command: click.Command, arguments: list[str] | None = None) -> int:
    """Run a command and return its exit status.

    0 done; 2 bad input, with one line on stderr; interrupted: 130 by Ctrl-C, 143 by SIGTERM, 129
    by SIGHUP. Anything else is a bug of ours and shows its traceback.

    Args:
        command: The command.
        arguments: By default the process's own.
    """
    with stoppable() as stop:
        try:
            return _outcome(command, arguments)
        except (Interrupted, click.Abort, KeyboardInterrupt) as error:
            why = f"interrupted: {error}" if str(error) else "interrupted"
            return _say_last(why, stop.status)
        except BaseException:
            if stop.number is None:
                raise
            return _say_last("interrupted", stop.status)  # what broke, broke of the signal


def _outcome(command: click.Command, arguments: list[str] | None) -> int:
    """Run a command and return its exit status, unless it is interrupted."""
    try:
        status = command.main(arguments, standalone_mode=False)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        return _say(f"error: {error.format_message()}", BAD_INPUT)
    except InputError as error:
        return _say(f"error: {error}", BAD_INPUT)
    except OSError as error:  # a full disk, a name too long: the system's refusals, not bugs
        return _say(f"error: {_refused(error)}", BAD_INPUT)
    except SafetensorError as error:  # its words for a full disk
        return _say(f"error: tensors cannot be written or read: {error}", BAD_INPUT)
    except MemoryError:
        return _say("error: there is not enough memory for this", BAD_INPUT)
    return status if isinstance(status, int) else 0


def _say_last(text: str, status: int) -> int:
    """Write one line, unless the terminal is gone: a hangup is told to nobody."""
    with suppress(OSError):
        _say(text, status)
    return status


def _say(text: str, status: int) -> int:
    """Write one line on stderr, whatever stands in the text."""
    print(one_line(text, LINE), file=sys.stderr)
    return status


def _refused(error: OSError) -> str:
    """Say what the system refused, and where."""
    where = "" if error.filename is None else f"{error.filename}: "
    return f"{where}{error.strerror or error}"


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
        what = plain(what)
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
