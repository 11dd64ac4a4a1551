"""What every study is: settings, cells of work that can be resumed, and three kinds of result.

A study writes ``table.csv`` (tidy: one measurement a row), its figures and, last,
``verdict.json``: verdicts by the rules of `analysis.framework.rules`, checks of what must hold
exactly, the settings and the command that made them.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from matplotlib.figure import Figure

from analysis.framework.options import Settings
from analysis.framework.rules import Verdict
from analysis.framework.tables import ARRAYS, TABLE, Row, load_rows, write_rows
from ntk_propulsion.commands.command_line import Output
from ntk_propulsion.commands.options import flag
from ntk_propulsion.commands.place import Place, holding
from ntk_propulsion.errors import InputError
from ntk_propulsion.figures import style
from ntk_propulsion.runs.environment import environment
from ntk_propulsion.runs.files import remove, write_atomically
from ntk_propulsion.runs.folder import Run, tidied
from ntk_propulsion.runs.progress import Progress
from ntk_propulsion.runs.records import to_json

S = TypeVar("S", bound=Settings)
FINAL = "verdict.json"
PACKAGES = ("ntk_propulsion", "analysis")
OWN = (FINAL, TABLE, ARRAYS, "steps/*.json", "*.png")
DATA = "GLUE"


@dataclass(frozen=True)
class Check:
    """Something that must hold whatever the claims are worth: an identity, a proven bound.

    Attributes:
        name: What must hold.
        passed: Whether it does.
        measured: By what numbers.
    """

    name: str
    passed: bool
    measured: str


@dataclass
class Work:
    """The cells of a study: each is done once, kept, and taken up again by ``--resume``."""

    run: Run
    progress: Progress
    cells: int = 0

    def cell(self, name: str, work: Callable[[], list[Row]]) -> list[Row]:
        """Return the rows that a cell of the study gives, doing it only if it is not done.

        Args:
            name: The cell's own among those of the study; it names its file, so that characters
                which no file's name should hold become underscores.
            work: Returns the rows, as plain JSON.
        """
        self.progress.advance(self.cells)
        self.cells += 1
        file = re.sub(r"[^A-Za-z0-9._+=-]+", "_", name)
        return self.run.step(file, lambda: {"rows": work()})["rows"]


@dataclass(frozen=True)
class Study(Generic[S]):
    """A study of one question.

    Attributes:
        name: Of its module.
        question: What it asks, in a sentence.
        settings: The dataclass of its settings, with the full study's values as defaults.
        quick: Settings of ``--quick``, by name.
        measure: Does the work and returns the table.
        judge: Returns the verdicts on the table.
        draw: Returns the figures, by file name.
        check: Returns what must hold.
    """

    name: str
    question: str
    settings: type[S]
    quick: Mapping[str, Any]
    measure: Callable[[S, Work], list[Row]]
    judge: Callable[[Sequence[Row], S], list[Verdict]]
    draw: Callable[[Sequence[Row], S], Mapping[str, Figure]]
    check: Callable[[Sequence[Row], S], list[Check]] = field(default=lambda rows, settings: [])

    def choose(self, quick: bool, **given: Any) -> S:
        """Return the settings: defaults, under those of ``--quick``, under what was given."""
        chosen = dict(self.quick) if quick else {}
        chosen |= {name: value for name, value in given.items() if value not in (None, ())}
        return replace(self.settings(), **chosen)

    def settings_of(self, kept: Mapping[str, Any]) -> S:
        """Return the settings that results were made with, as verdict.json keeps them."""
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in kept.items()}
        return replace(self.settings(), **given)

    def run(
        self, settings: S, run: Run, command: str, progress: Progress | None = None
    ) -> dict[str, Any]:
        """Do, or finish, the study in its folder, which must have begun; return its outcome."""
        told = progress or Progress()
        told.begin(self.name)
        rows = self.measure(settings, Work(run, told))
        made_with = asdict(environment(run.seconds, run.resumed))
        outcome = self._write(rows, settings, run.folder, command, made_with)
        run.clean()
        return outcome

    def redraw(self, folder: Path) -> dict[str, Any]:
        """Judge and draw a finished study anew from its table, without measuring.

        Raises:
            InputError: The folder holds no finished study of this kind.
        """
        try:
            before = json.loads((folder / FINAL).read_text())
            settings = self.settings_of(before["settings"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{folder} holds no finished {self.name}: leave --redraw out"
            ) from error
        command, measured_on = before["command"], before["environment"]
        with tidied(folder, FINAL, OWN):
            return self._write(load_rows(folder), settings, folder, command, measured_on)

    def _write(
        self,
        rows: Sequence[Row],
        settings: S,
        folder: Path,
        command: str,
        measured_on: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Judge and draw rows, write everything, verdict.json last, and return what it holds."""
        outcome = {
            "study": self.name,
            "question": self.question,
            "command": command,
            "settings": described(settings),
            "verdicts": [asdict(verdict) for verdict in self.judge(rows, settings)],
            "checks": [asdict(check) for check in self.check(rows, settings)],
            "environment": measured_on,
        }
        drawn = {name: style.render(figure) for name, figure in self.draw(rows, settings).items()}
        write_rows(rows, folder)
        for name, png in drawn.items():
            write_atomically(folder / f"{name}.png", png)
        for path in folder.glob("*.png"):
            if path.stem not in drawn:  # of an earlier version of the study
                remove(path)
        write_atomically(folder / FINAL, to_json(outcome))  # last: now it is complete
        return outcome


def study_run(study: Study[Any], settings: Settings, folder: Path) -> Run:
    """Return the run of a study in a folder."""
    described_settings = {"study": study.name, **described(settings)}
    return Run(folder, described_settings, final=FINAL, own=OWN, packages=PACKAGES)


def described(settings: Settings) -> dict[str, Any]:
    """Return settings as results keep them: where the data folder lies is nobody's concern."""
    return {**asdict(settings), "data": settings.data and DATA}


def execute(
    study: Study[Any],
    settings: Settings,
    folder: Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    resume_anyway: bool = False,
    progress: Progress | None = None,
    output: Output | None = None,
) -> dict[str, Any]:
    """Run a study in a folder under the rules of `ntk_propulsion.runs.folder`; return its outcome.

    Args:
        study: The study.
        settings: Its settings.
        folder: Where its results go.
        overwrite: An earlier run there may be replaced.
        resume: It may be gone on with.
        resume_anyway: Also under other conditions than it was begun with.
        progress: Is told how far it is; or else the bar of `output`.
        output: What is shown meanwhile.
    """
    run = study_run(study, settings, folder)
    place = Place(None, overwrite, resume, resume_anyway)
    with holding(run, place):
        if place.holds(run):
            return run.report()
        run.begin(overwrite=place.overwrite)
        if progress is not None:
            return study.run(settings, run, _command(study, settings), progress)
        with (output or Output()).progress() as bar:
            return study.run(settings, run, _command(study, settings), bar)


def failed(outcome: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the checks that failed."""
    return [check for check in outcome["checks"] if not check["passed"]]


def _command(study: Study[Any], settings: Settings) -> str:
    """Return the command that makes these results."""
    words = ["python", "-m", f"analysis.{study.name}"]
    default = asdict(study.settings())
    for name, value in described(settings).items():
        if value != default[name]:
            shown = ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
            words += [flag(name), shown]
    return shlex.join(words)


def seeds(settings: Settings) -> range:
    """Return the seeds of a study.

    Raises:
        InputError: There are none.
    """
    if settings.seeds < 1:
        raise InputError(f"--seeds {settings.seeds}: give 1 or more")
    return range(settings.seeds)
