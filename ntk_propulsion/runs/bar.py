"""A bar for work that tells how far it is, in a terminal and in a notebook."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

Told = Callable[[int, int], None]
"""Called with (done, in all)."""


@contextmanager
def shown(progress: Told | bool | None, what: str) -> Iterator[Told | None]:
    """Give what long work should call: the caller's own function, a bar's for True, or nothing.

    Args:
        progress: As the caller gave it.
        what: What the bar calls the work.
    """
    if progress is not True:
        yield progress or None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=_console()) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def _console() -> Console:
    """Return where bars go; in a notebook without widgets, its plain text output."""
    from rich.console import Console

    console = Console()
    if console.is_jupyter and find_spec("ipywidgets") is None:
        return Console(force_jupyter=False, force_terminal=True, width=console.width)
    return console
