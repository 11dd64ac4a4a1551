"""The folder of a run: finished steps are kept, and nothing half-done is taken for a result."""

from __future__ import annotations

import datetime
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ntk_propulsion.errors import InputError
from ntk_propulsion.runs.about import FILE, About, is_run, read_about, write_about
from ntk_propulsion.runs.conditions import Conditions, conditions, differences, short
from ntk_propulsion.runs.files import (
    is_leftover,
    leftovers,
    remove,
    remove_leftover,
    write_atomically,
)
from ntk_propulsion.runs.lock import LOCK, locked
from ntk_propulsion.runs.records import from_json, to_json

T = TypeVar("T")
SETTINGS = FILE
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
KEPT = ("trajectories/*", f"{STEPS}/**/*")
"""Patterns of what else appears whole or not at all."""


class OtherConditions(InputError):  # noqa: N818 (it names what was found)
    """An interrupted run was begun under other conditions, and would not end in the same bits."""


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
        packages: Whose sources its results depend on.
        seconds: How long each finished step took.
        notes: What whoever holds it should be told, a sentence each.
        resumed: What was other in earlier processes, where it goes on all the same.
        has_begun: Whether this process has begun to write.
    """

    folder: Path
    settings: dict[str, Any]
    final: str = FINAL
    own: tuple[str, ...] = OWN
    packages: tuple[str, ...] = ("ntk_propulsion",)
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    resumed: tuple[str, ...] = ()
    has_begun: bool = False

    def __post_init__(self) -> None:
        self.settings = json.loads(json.dumps(self.settings))

    @property
    def complete(self) -> bool:
        """Whether the final file is there, and so everything."""
        return (self.folder / self.final).is_file()

    @contextmanager
    def held(
        self, *, overwrite: bool = False, resume: bool = False, anyway: bool = False
    ) -> Iterator[None]:
        """Keep the folder for this process while the context lasts, as `check` allows it.

        What is left of processes that were killed is removed; a complete run that is resumed, to
        be shown, loses the steps that a kill after its end left behind.

        Raises:
            InputError: As `check`; another process works in the folder; it cannot be written to.
        """
        if self._filled() and not is_run(self.folder):
            self.check(overwrite=overwrite, resume=resume)  # refuses: nothing is touched
        with ExitStack() as stack:
            try:
                sure = stack.enter_context(locked(self.folder / LOCK, self.folder))
            except OSError as error:
                if not (resume and self.complete):  # which can be read where nothing is written
                    raise self.unwritable(error) from error
                sure = True
            if not sure:
                self.notes.append(
                    f"no locks where {self.folder} lies: see that no other process works there"
                )
            self.check(overwrite=overwrite, resume=resume, anyway=anyway)
            if resume and self.complete:
                with suppress(OSError):
                    self.tidy()
                    self.clean()
            yield

    def check(self, *, overwrite: bool, resume: bool, anyway: bool = False) -> None:
        """Refuse a folder that this run may not use; nothing is touched.

        Args:
            overwrite: The run that the folder holds may be replaced.
            resume: It may be gone on with.
            anyway: Also under other code, libraries, threads or device than it was begun with.

        Raises:
            InputError: There is a file in its place, it cannot be read, or it holds files that
                are not of a run, or a run and neither flag is given, or a run with other settings
                or conditions to resume.
        """
        if overwrite and resume:
            raise InputError("--overwrite starts anew and --resume goes on: give one of them")
        if not self._filled() or (overwrite and is_run(self.folder)):
            return
        before = read_about(self.folder)
        if resume:
            self._check_same(before.settings)
            if not self.complete:
                self._check_conditions(before, anyway)
        else:
            state = "a finished run" if self.complete else "an interrupted run"
            raise InputError(
                f"{self.folder} holds {state}: add --resume or --overwrite, or another --out"
            )

    def begin(self, *, overwrite: bool = False) -> None:
        """Make the folder; with `overwrite`, remove an earlier run (and no file that isn't its).

        The run.json of an earlier run stays until this one's takes its place: a folder is always
        that of one run or of the other.

        Raises:
            InputError: The folder cannot be written to.
        """
        self.has_begun = True
        now = conditions(self.packages, str(self.settings.get("device", "cpu")))
        about = About(self.settings, now)
        try:
            self.tidy()
            if is_run(self.folder) and not overwrite:
                before = read_about(self.folder)
                about = self._gone_on(before, now)
                if about == before:
                    return
            if overwrite and self.folder.exists():
                self._remove()
            write_about(self.folder, about)
        except OSError as error:
            raise self.unwritable(error) from error

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
        except (ValueError, KeyError, TypeError, RecursionError) as error:
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

    def unwritable(self, error: OSError) -> InputError:
        """Return what to say of an error while writing to the folder."""
        return InputError(f"cannot write to {self.folder} ({error.strerror}): choose another --out")

    def _filled(self) -> bool:
        """Tell whether the folder is there and holds anything but what a killed run left."""
        try:
            if self.folder.exists() and not self.folder.is_dir():
                raise InputError(f"{self.folder} is a file: choose another --out")
            return self.folder.exists() and any(
                path.name != LOCK and not is_leftover(path.name, SETTINGS)
                for path in self.folder.iterdir()
            )
        except OSError as error:
            raise InputError(
                f"cannot read {self.folder} ({error.strerror}): choose another --out"
            ) from error

    def _check_same(self, before: dict[str, Any]) -> None:
        differing = sorted(
            key
            for key in before.keys() | self.settings.keys()
            if before.get(key) != self.settings.get(key)
        )
        if differing:
            changes = [
                f"{short(key)} was {short(repr(before.get(key)))}, "
                f"is {short(repr(self.settings.get(key)))}"
                for key in differing
            ]
            raise InputError(f"cannot resume {self.folder} with other settings: {_some(changes)}")

    def _check_conditions(self, before: About, anyway: bool) -> None:
        """Refuse to go on under other conditions, or note what differs."""
        now = conditions(self.packages, str(self.settings.get("device", "cpu")))
        refused, noted = differences(before.conditions, now)
        if refused and not anyway:
            raise OtherConditions(
                f"cannot resume {self.folder} to the same bits: {_some(refused)}; restore that, or "
                "mix with --resume-anyway, or begin anew with --overwrite"
            )
        if refused or noted:
            self.notes.append(f"{self.folder} goes on although {_some(refused + noted)}")

    def _gone_on(self, before: About, now: Conditions) -> About:
        """Return what a run is that goes on; note what was other before."""
        earlier = before.earlier
        if before.conditions != now and before.conditions not in earlier:
            earlier = (*earlier, before.conditions)
        told = [words for each in earlier for some in differences(each, now) for words in some]
        self.resumed = tuple(dict.fromkeys(told))
        return About(before.settings, now, earlier)

    def tidy(self) -> None:
        """Remove what processes left half-written that were killed: here, only one writes."""
        for pattern in (SETTINGS, *self.own, *KEPT):
            for path in leftovers(self.folder, pattern):
                remove_leftover(path)

    def _remove(self) -> None:
        for pattern in self.own:
            for path in self.folder.glob(pattern):
                remove(path)
        shutil.rmtree(self.folder / STEPS, ignore_errors=True)


@contextmanager
def tidied(folder: Path, final: str = FINAL, own: tuple[str, ...] = OWN) -> Iterator[None]:
    """Keep a finished run's folder for this process, to draw it anew, while the context lasts.

    What is left of processes that were killed is removed. A folder that holds nothing finished is
    left as it is.

    Raises:
        InputError: Another process works there, or it cannot be written to.
    """
    run = Run(folder, {}, final, own)
    if not run.complete:
        yield
        return
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / LOCK, folder))
            if is_run(folder):
                run.tidy()
                run.clean()
        except OSError as error:
            raise run.unwritable(error) from error
        yield


def _some(words: list[str]) -> str:
    """Return the first of several changes, so that a line stays one."""
    more = f" and {len(words) - 2} more" if len(words) > 2 else ""
    return ", ".join(words[:2]) + more
