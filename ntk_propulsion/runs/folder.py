"""The folder of a run: finished steps are kept, and nothing half-done is taken for a result."""

from __future__ import annotations

import datetime
import json
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ntk_propulsion.errors import InputError
from ntk_propulsion.runs.files import write_atomically
from ntk_propulsion.runs.records import from_json, to_json

T = TypeVar("T")
FORMAT = "ntk_propulsion.run/1"
SETTINGS = "run.json"
FINAL = "report.json"
STEPS = "steps"
# In the order of their removal: a removal that is cut short leaves nothing that looks finished.
OWN = (
    FINAL,
    "report.html",
    f"{STEPS}/*.json",
    "kernels.safetensors",
    "vectors.safetensors",
    "adapter.safetensors",
    "head.safetensors",
    "figures/*.png",
    "trajectories/*/*.json",
    "trajectories/*/points/*",
)


def default_folder(name: str) -> Path:
    """Return a folder of its own under runs/ for what is named so, by the time of day."""
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)[:100]}-{now}"


@dataclass
class Run:
    """An output folder of one run.

    ``run.json`` holds its settings, ``steps/`` what is done, the final file appears last.

    Attributes:
        folder: Where everything goes.
        settings: What the results depend on, as JSON holds it.
        final: Name of the file whose presence says that everything is done.
        own: Patterns of the files that a run writes, in the order of their removal.
        seconds: How long each finished step took.
    """

    folder: Path
    settings: dict[str, Any]
    final: str = FINAL
    own: tuple[str, ...] = OWN
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.settings = json.loads(json.dumps(self.settings))

    @property
    def complete(self) -> bool:
        """Whether the final file is there, and so everything."""
        return (self.folder / self.final).is_file()

    def check(self, *, overwrite: bool, resume: bool) -> None:
        """Refuse a folder that this run may not use; nothing is touched.

        Args:
            overwrite: The run that the folder holds may be replaced.
            resume: It may be gone on with.

        Raises:
            InputError: There is a file in its place, it cannot be read, or it holds files that
                are not of a run, or a run and neither flag is given, or a run with other settings
                to resume.
        """
        if overwrite and resume:
            raise InputError("--overwrite starts anew and --resume goes on: give one of them")
        if not self._filled():
            return
        before = self._before()
        if resume:
            self._check_same(before)
        elif not overwrite:
            state = "a finished run" if self.complete else "an interrupted run"
            raise InputError(
                f"{self.folder} holds {state}: add --resume or --overwrite, or another --out"
            )

    def begin(self, *, overwrite: bool = False) -> None:
        """Make the folder; with `overwrite`, remove an earlier run (and no file that isn't its).

        Raises:
            InputError: The folder cannot be written to.
        """
        try:
            if overwrite and self.folder.exists():
                self._remove()
            if not (self.folder / SETTINGS).exists():
                content = {"format": FORMAT, "settings": self.settings}
                write_atomically(self.folder / SETTINGS, json.dumps(content, indent=1) + "\n")
        except OSError as error:
            raise InputError(
                f"cannot write to {self.folder} ({error.strerror}): choose another --out"
            ) from error

    def path(self, name: str) -> Path:
        """Return the path of a step's file or folder."""
        return self.folder / STEPS / name

    def step(self, name: str, work: Callable[[], T], form: type[T] | None = None) -> T:
        """Return what a step gives, doing it only if it is not done.

        Other files that the step leaves must be written before it returns: its JSON file, written
        last, is what says that the step is done.

        Args:
            name: Of the step, and of its file.
            work: Does it.
            form: The dataclass that it returns, kept as `runs.records` writes it; None for plain
                JSON, in which Python's NaN and infinity last.

        Raises:
            InputError: The step's JSON file is not what this method wrote.
        """
        path = self.path(f"{name}.json")
        if not path.is_file():
            start = time.perf_counter()
            result = work()
            done = {"seconds": time.perf_counter() - start, "result": result}
            write_atomically(path, json.dumps(done) if form is None else to_json(done))
        try:
            found = json.loads(path.read_text())
            self.seconds[name] = found["seconds"]
            kept = found["result"]
            return kept if form is None else from_json(form, json.dumps(kept))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is damaged: remove it and resume") from error

    def report(self) -> dict[str, Any]:
        """Return the report of a complete run.

        Raises:
            InputError: It is missing or damaged.
        """
        try:
            return json.loads((self.folder / self.final).read_text())
        except (OSError, ValueError) as error:
            raise InputError(f"{self.folder / self.final} is damaged: use --overwrite") from error

    def clean(self) -> None:
        """Remove the finished steps of a complete run: the report holds what they gave."""
        if self.complete:
            shutil.rmtree(self.folder / STEPS, ignore_errors=True)

    def _filled(self) -> bool:
        """Tell whether the folder is there and holds anything."""
        try:
            if self.folder.exists() and not self.folder.is_dir():
                raise InputError(f"{self.folder} is a file: choose another --out")
            return self.folder.exists() and any(self.folder.iterdir())
        except OSError as error:
            raise InputError(
                f"cannot read {self.folder} ({error.strerror}): choose another --out"
            ) from error

    def _before(self) -> dict[str, Any]:
        """Return the settings of the run that the folder holds."""
        path = self.folder / SETTINGS
        foreign = InputError(
            f"{self.folder} holds files that are not of a run: choose another --out"
        )
        try:
            found = json.loads(path.read_text())
        except (OSError, ValueError, RecursionError):
            raise foreign from None
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise foreign
        settings = found.get("settings")
        if not isinstance(settings, dict):
            raise InputError(f"{path} is damaged: it holds no settings; choose another --out")
        return settings

    def _check_same(self, before: dict[str, Any]) -> None:
        differing = sorted(
            key
            for key in before.keys() | self.settings.keys()
            if before.get(key) != self.settings.get(key)
        )
        if differing:
            changes = ", ".join(
                f"{key} was {before.get(key)!r}, is {self.settings.get(key)!r}" for key in differing
            )
            raise InputError(f"cannot resume {self.folder} with other settings: {changes}")

    def _remove(self) -> None:
        for pattern in self.own:
            for path in self.folder.glob(pattern):
                path.unlink()
        shutil.rmtree(self.folder / STEPS, ignore_errors=True)
        (self.folder / SETTINGS).unlink(missing_ok=True)
