"""Where a command's run writes, and what may become of an earlier one there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ntk_propulsion.errors import InputError
from ntk_propulsion.runs.folder import Run, default_folder
from ntk_propulsion.runs.options import option


@dataclass(frozen=True)
class Place:
    """The folder of a run, as a command line gives it."""

    out: str | None = option(None)
    overwrite: bool = option(False)
    resume: bool = option(False)

    def run(self, name: str, settings: dict[str, Any]) -> Run:
        """Return the run in this folder, or in one of its own by this name and the time of day.

        Args:
            name: What the run is called, where no folder is given.
            settings: What its results depend on.

        Raises:
            InputError: The run may not use the folder, or there is none to resume.
        """
        if self.resume and not self.out:
            raise InputError("--resume needs --out, the folder of the interrupted run")
        run = Run(Path(self.out) if self.out else default_folder(name), settings)
        run.check(overwrite=self.overwrite, resume=self.resume)
        return run

    def holds(self, run: Run) -> bool:
        """Tell whether the run is finished already and only to be shown."""
        return self.resume and run.complete
