"""What every study is: settings, cells of work that can be resumed, and three kinds of result.

A study writes ``table.csv`` (tidy: one measurement a row), its figures and, last,
``verdict.json``: verdicts by the rules of `analysis.framework.rules`, checks of what must hold
exactly, the settings and the command that made them. Rows that hold an ``array`` (a kernel for a
heat map, of a ``name``) go to ``arrays.npz`` instead of the table.
"""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import click
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from analysis.framework.options import Settings
from analysis.framework.rules import Verdict
from ntk_propulsion.commands.command_line import Interrupted, Output, run_command
from ntk_propulsion.commands.options import LOOK, Command, build, default_of, flag, options_of
from ntk_propulsion.commands.place import Place
from ntk_propulsion.errors import InputError
from ntk_propulsion.figures import style
from ntk_propulsion.runs.environment import environment
from ntk_propulsion.runs.files import write_atomically
from ntk_propulsion.runs.folder import Run
from ntk_propulsion.runs.options import option
from ntk_propulsion.runs.progress import Progress
from ntk_propulsion.runs.records import to_json

Row = dict[str, Any]
S = TypeVar("S", bound=Settings)
FINAL, TABLE, ARRAYS = "verdict.json", "table.csv", "arrays.npz"
OWN = (FINAL, TABLE, ARRAYS, "steps/*.json", "*.png")
FAILED_CHECK = 1
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
        outcome = self._write(rows, settings, run.folder, command, asdict(environment(run.seconds)))
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
        files = {folder / TABLE: table_csv(rows).encode()}
        if arrays := arrays_of(rows):
            content = io.BytesIO()
            np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
            files[folder / ARRAYS] = content.getvalue()
        for name, figure in self.draw(rows, settings).items():
            files[folder / f"{name}.png"] = style.render(figure)
        files[folder / FINAL] = to_json(outcome).encode()  # last: now it is complete
        for path, data in files.items():
            write_atomically(path, data)
        return outcome


def study_run(study: Study[Any], settings: Settings, folder: Path) -> Run:
    """Return the run of a study in a folder."""
    return Run(folder, {"study": study.name, **described(settings)}, final=FINAL, own=OWN)


def described(settings: Settings) -> dict[str, Any]:
    """Return settings as results keep them: where the data folder lies is nobody's concern."""
    return {**asdict(settings), "data": settings.data and DATA}


def arrays_of(rows: Iterable[Row]) -> dict[str, np.ndarray]:
    """Return the arrays that rows hold, by name, in single precision."""
    return {row["name"]: np.asarray(row["array"], np.float32) for row in rows if "array" in row}


def table_csv(rows: Iterable[Row]) -> str:
    """Return rows as CSV, a column for every key that any of them has, in order of appearance.

    Texts stand in quotes, numbers do not, so that `load_rows` reads back what was written. Six
    digits are more than any of these measurements has. Rows that hold an array are left out.
    """
    rows = [row for row in rows if "array" not in row]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writeheader()
    writer.writerows({k: _short(v) for k, v in row.items()} for row in rows)
    return text.getvalue()


def _short(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value)
    return float(f"{value:.6g}") if isinstance(value, float) else value


def load_rows(folder: Path) -> list[Row]:
    """Return the rows of a finished study, those with arrays at the end.

    A measurement that a row does not have is None.

    Raises:
        InputError: The folder holds no whole table.
    """
    try:
        with (folder / TABLE).open(newline="") as file:
            rows = [
                {key: _typed(value) for key, value in row.items()}
                for row in csv.DictReader(file, quoting=csv.QUOTE_NONNUMERIC)
            ]
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / TABLE} is missing or damaged: run the study anew") from error
    if (folder / ARRAYS).is_file():
        with np.load(folder / ARRAYS) as arrays:
            rows += [{"name": name, "array": arrays[name]} for name in arrays.files]
    return rows


def _typed(value: Any) -> Any:
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    return {"": None, "True": True, "False": False}.get(value, value)


@dataclass(frozen=True)
class Mode:
    """How a study is run."""

    quick: bool = option(False, "A small setting, done in under 2 minutes.")
    redraw: bool = option(False, "Judge and draw a finished run anew.")


def main(study: Study[Any], arguments: list[str] | None = None) -> int:
    """Run a study from the command line and return the exit status: 1 where a check fails."""
    return run_command(command_of(study), arguments)


def command_of(study: Study[Any]) -> click.Command:
    """Return the command of a study: its settings' options, and those of every run."""

    def act(**given: Any) -> int:
        mode, place, output = build(Mode, given), build(Place, given), build(Output, given)
        folder = Path(place.out) if place.out else home(mode.quick) / study.name
        if mode.redraw:
            outcome = study.redraw(folder)
        else:
            settings = study.choose(mode.quick, **given)
            outcome = execute(
                study,
                settings,
                folder,
                overwrite=place.overwrite,
                resume=place.resume,
                output=output,
            )
        show(outcome, output.console())
        output.end(folder, (folder / FINAL).read_text())
        return FAILED_CHECK if failed(outcome) else 0

    quick = {
        part.name: f"{default_of(part)}; less with --quick"
        for part in fields(study.settings)
        if part.name in study.quick and default_of(part)
    }
    params = [
        *options_of(Mode),
        *options_of(study.settings, quick),
        *options_of(Place, {"out": "runs/analysis/NAME"}),
        *options_of(Output),
    ]
    return Command(
        study.name, params=params, callback=act, help=study.question, context_settings=LOOK
    )


def home(quick: bool) -> Path:
    """Return the folder that studies write their own folders into, if no other is given."""
    return Path("runs") / ("quick" if quick else "analysis")


def execute(
    study: Study[Any],
    settings: Settings,
    folder: Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    output: Output | None = None,
) -> dict[str, Any]:
    """Run a study in a folder under the rules of `ntk_propulsion.runs.folder`; return its outcome.

    Progress goes to `progress`, or else to the bar of `output`.
    """
    run = study_run(study, settings, folder)
    run.check(overwrite=overwrite, resume=resume)
    if resume and run.complete:
        return run.report()
    run.begin(overwrite=overwrite)
    try:
        if progress is not None:
            return study.run(settings, run, _command(study, settings), progress)
        with (output or Output()).progress() as bar:
            return study.run(settings, run, _command(study, settings), bar)
    except KeyboardInterrupt as stop:
        raise Interrupted(
            f"the same command with --resume --out {run.folder} finishes it"
        ) from stop


def failed(outcome: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the checks that failed."""
    return [check for check in outcome["checks"] if not check["passed"]]


def show(outcome: Mapping[str, Any], console: Console) -> None:
    """Print verdicts, and on stderr the checks that failed."""
    table = Table("claim", "verdict", "measured", title=outcome["question"], title_justify="left")
    for verdict in outcome["verdicts"]:
        table.add_row(verdict["id"], verdict["verdict"], escape(verdict["measured"]))
    console.print(table)
    for check in failed(outcome):
        print(f"check failed: {check['name']}: {check['measured']}", file=sys.stderr)


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
