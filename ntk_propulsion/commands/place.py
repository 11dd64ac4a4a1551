"""Where a command's run writes, and what may become of an earlier one there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ntk_propulsion.commands.command_line import Interrupted
from ntk_propulsion.errors import InputError
from ntk_propulsion.runs.folder import Run, default_folder
from ntk_propulsion.runs.options import option


@dataclass(frozen=True)
class Place:
    """The folder of a run, as a command line gives it."""

    out: str | None = option(None)
    overwrite: bool = option(False)
    resume: bool = option(False)
    resume_anyway: bool = option(False)

    @contextmanager
    def held(self, name: str, settings: dict[str, Any]) -> Iterator[Run]:
        """Give the run in this folder, or in one of its own by this name and the time of day.

        Args:
            name: What the run is called, where no folder is given.
            settings: What its results depend on.

        Raises:
            InputError: The run may not use the folder, or there is none to resume.
        """
        if self.resumes and not self.out:
            raise InputError("--resume needs --out, the folder of the interrupted run")
        run = Run(Path(self.out) if self.out else default_folder(name), settings)
        with holding(run, self):
            yield run

    @property
    def resumes(self) -> bool:
        """Whether an earlier run is gone on with."""
        return self.resume or self.resume_anyway

    def holds(self, run: Run) -> bool:
        """Tell whether the run is finished already and only to be shown."""
        return self.resumes and run.complete


@contextmanager
def holding(run: Run, place: Place) -> Iterator[None]:
    """Hold a run's folder while the context lasts, and say what is to be known of that.

    Raises:
        InputError: The run may not use the folder.
        Interrupted: Somebody stopped it; says how to go on.
    """
    try:
        with run.held(overwrite=place.overwrite, resume=place.resumes, anyway=place.resume_anyway):
            for note in run.notes:
                print(f"note: {' '.join(note.split())}", file=sys.stderr)
            yield
    except KeyboardInterrupt as stop:
        raise Interrupted(_advice(run, place)) from stop


def _advice(run: Run, place: Place) -> str:
    """Return how to go on with a run that somebody stopped."""
    if not run.has_begun:
        return "the same command does it again"
    instead = " in place of --overwrite" if place.overwrite else ""
    return f"the same command with --resume --out {run.folder}{instead} finishes it"
