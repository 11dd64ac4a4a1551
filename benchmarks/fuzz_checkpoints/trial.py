"""What one damaged file does to a whole command, in a process that has everything loaded."""

from __future__ import annotations

import io
import random
import shutil
import sys
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

from benchmarks.fuzz_checkpoints.inputs import Input, inputs
from benchmarks.fuzz_checkpoints.mutations import mutant, write
from benchmarks.fuzz_checkpoints.tripwires import Tripwires
from ntk_propulsion.commands.command_line import run_command
from ntk_propulsion.commands.main import main
from ntk_propulsion.errors import InputError
from ntk_propulsion.report import audit_writer
from ntk_propulsion.tasks import load_task

BUDGET = 10
"""Seconds that a command is given."""
DRAWN = 2000
"""Every so manieth mutant's figures are drawn too, which takes as long as fifty without."""
PAGES = 4
"""Every so manieth mutant of a kind gets its page."""
FAULTS = (
    *("crash", "hang", "traceback", "code run", "connection", "file written"),
    *("long line", "control character", "unclear"),
)


@dataclass(frozen=True)
class Outcome:
    """What came of a mutant.

    Attributes:
        what: refused, read, spent (the budget), or one of `FAULTS`.
        kind: Of the input.
        words: The error, or what shows the fault.
    """

    what: str
    kind: str
    words: str


class Bench:
    """Everything that trials need; made once, before processes split off.

    Attributes:
        folder: Everything is written below it.
        kinds: The inputs by name.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = folder / "base"
        self.kinds = inputs(self.base)
        self.kinds |= self._finished()
        self.names = sorted(self.kinds)
        self.others = [data for each in self.kinds.values() for data in each.files.values()]

    def _finished(self) -> dict[str, Input]:
        """Return the folder of an audit that is done: to be drawn again, and to be resumed."""
        right = self.kinds["convert adapter"]
        write(right.files, self.folder / "right")
        out, tuned = self.folder / "done", self.folder / "right" / right.path
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            self._command("audit", "--base", self.base, "--tuned", tuned, "--out", out)
        names = [p for p in out.iterdir() if p.is_file() and p.suffix in (".json", ".safetensors")]
        files = {path.name: path.read_bytes() for path in names}
        return {"report": Input(files, "report"), "resume": Input(files, "resume")}

    def case(self, seed: int, number: int) -> tuple[str, Input, str]:
        """Return the kind, the files and what was damaged of a mutant."""
        rng = random.Random(f"{seed}:{number}")
        kind = self.names[number % len(self.names)]
        right = self.kinds[kind]
        files, what = mutant(rng, right.files, self.others)
        return kind, replace(right, files=files), what

    def trial(self, seed: int, number: int, wires: Tripwires, place: Path) -> Outcome:
        """Do what is done with one mutant, and judge it."""
        kind, case, _ = self.case(seed, number)
        shutil.rmtree(place, ignore_errors=True)
        write(case.files, place / "in")
        out, err = io.StringIO(), io.StringIO()
        wires.reset()
        try:
            with redirect_stdout(out), redirect_stderr(err):
                status = self._act(case, place, number)
        except BaseException:
            lines = traceback.format_exc().splitlines()
            ours = [line.strip() for line in lines if "ntk_propulsion" in line]
            return Outcome("traceback", kind, f"{lines[-1][:300]} at {' < '.join(ours[-2:])[:300]}")
        finally:
            wires.on = False
        return _judged(kind, status, out.getvalue(), err.getvalue(), place, wires)

    def _act(self, case: Input, place: Path, number: int) -> int:
        path, out = place / "in" / case.path, place / "out"
        if case.action == "task":
            return _load(path)
        budget = ("--budget-seconds", BUDGET)
        if case.action == "convert":
            into = ("convert", path, "--base", self.base, "--out", out)
            return self._command(*into, *case.options, *budget)
        with self._shown(number):
            if case.action == "report":
                return self._command("report", place / "in")
            if case.action == "resume":
                tuned = self.folder / "right" / "a.safetensors"
                again = ("audit", "--base", self.base, "--tuned", tuned, "--out", place / "in")
                return self._command(*again, "--resume", *budget)
            base = place / "in" / case.base if case.base else self.base
            fresh = ("audit", "--base", base, "--tuned", path, "--out", out)
            return self._command(*fresh, *budget)

    @contextmanager
    def _shown(self, number: int) -> Iterator[None]:
        """Leave out figures, and pages too, of most mutants: they take most of the time."""
        with ExitStack() as stack:
            if number % DRAWN:
                stack.enter_context(patch.object(audit_writer, "draw_audit", lambda audit: {}))
            if number // len(self.names) % PAGES:
                stack.enter_context(patch.object(audit_writer, "audit_page", lambda *_: ""))
            yield

    def _command(self, *words: object) -> int:
        return run_command(main, list(map(str, words)))


def _load(path: Path) -> int:
    try:
        task = load_task(path)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0 if task.labels or task.kind == "regression" else 1


def _judged(kind: str, status: int, out: str, err: str, place: Path, wires: Tripwires) -> Outcome:
    for what, touched in (
        ("code run", wires.code),
        ("connection", wires.network),
        ("file written", wires.files),
    ):
        if touched:
            return Outcome(what, kind, "; ".join(touched)[:300])
    lines = err.splitlines()
    if long := [line for line in lines if len(line) > 300]:
        return Outcome("long line", kind, long[0][:300])
    pages = [place / at / name for at in ("out", "in") for name in ("report.html", "report.json")]
    made = [
        path for path in pages if path.is_file() and (status == 0 and path.parent.name == "out")
    ]
    texts = [out, err, *(path.read_text() for path in made)]
    for text in texts:
        if unseen := sorted(c for c in set(text) if not c.isprintable() and c != "\n"):
            return Outcome("control character", kind, f"{unseen[:5]!r} in {text[:100]!r}")
    told = [line for line in lines if line.startswith("error:")]
    if status == 2 and len(told) == 1:
        spent = "the budget of" in told[0]
        return Outcome("spent" if spent else "refused", kind, told[0])
    if status in (0, 3):
        return Outcome("read", kind, "")
    return Outcome("unclear", kind, f"status {status}: {err[-200:]!r}")
