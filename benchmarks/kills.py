"""Does a run that is killed anywhere end in the same bits?

python -m benchmarks.kills [--kills 200] [--seed 0] [--of compare,recorded,audit,convert,study]:
tiny runs, each in a process forked from this one, which is killed at a random moment, at one of
its writes, or told to end; then another goes on (and may be killed too) until the run is done, and
every file is compared with an uninterrupted run's. A kill at a write comes before it; a file that
is being written is cut in half. Prints how the runs ended; exit status 1 if any ended otherwise
than it should. Leave the sources alone meanwhile: a run does not go on under other code.
"""

from __future__ import annotations

import gc
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click
import torch

from benchmarks.timing import where_and_when
from ntk_propulsion.errors import InputError
from ntk_propulsion.runs.bar import shown
from tests import tiny_kills

How = Literal["write", "moment", "signal"]
DEATHS = 3  # of one run, at most
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
ADVICE = "interrupted: the same command"
PATIENCE = 300.0
"""Seconds after which a process hangs."""


@dataclass(frozen=True)
class Death:
    """When a process is to die.

    Attributes:
        how: At a write, at a moment, or of a signal at a moment.
        at: The write's number from 1, or seconds after the start.
        number: The signal's.
    """

    how: How
    at: float
    number: int = signal.SIGKILL


@dataclass
class Writes:
    """Counts what a process does to files below a folder; at one of them it dies.

    Attributes:
        below: The folder.
        last: The number of the one to die at; 0 for none.
        count: How many there were.
    """

    below: Path
    last: int = 0
    count: int = 0

    def watch(self) -> None:
        """Count from now on, until this process ends."""
        real = os.fsync

        def fsync(opened: int) -> None:
            path = Path(os.readlink(f"/proc/self/fd/{opened}"))
            self._next(path, written=True)
            real(opened)

        os.fsync = fsync  # type: ignore[assignment]
        sys.addaudithook(self._hear)

    def _hear(self, event: str, about: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = about
            if isinstance(path, str | os.PathLike) and flags & WRITING:
                self._next(Path(path))
        elif event in EVENTS and not isinstance(about[0], int):
            self._next(Path(os.fsdecode(about[0])))

    def _next(self, path: Path, *, written: bool = False) -> None:
        if path.is_absolute() and not path.is_relative_to(self.below):
            return  # a name alone is of a folder that is being removed
        self.count += 1
        if self.count == self.last:
            if written and path.is_file():
                os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit status or minus the signal that killed it, and its words."""

    status: int
    seconds: float
    said: str
    writes: int


def ended(work: Callable[[], int], out: Path, death: Death | None = None) -> Ended:
    """Do work in a forked process that dies as it is told.

    Args:
        work: Returns the exit status.
        out: The folder that it writes; the process's words go beside it.
        death: How it dies; None for not at all.
    """
    log, count = out.with_suffix(".log"), out.with_suffix(".writes")
    for path in (log, count):
        path.write_text("")
    sys.stdout.flush()
    start = time.perf_counter()
    child = os.fork()
    if child == 0:
        _be(work, out, log, count, death)
    status = _waited(child, start, death)
    seconds = time.perf_counter() - start
    said = log.read_text(errors="replace")
    return Ended(status, seconds, said, int(count.read_text() or 0))


def _be(work: Callable[[], int], out: Path, log: Path, count: Path, death: Death | None) -> None:
    """Be the process; does not return."""
    status = 70
    gc.freeze()  # its own collections are quick then
    try:
        sys.stdout = sys.stderr = log.open("w", buffering=1)
        for stream in (1, 2):
            os.dup2(sys.stdout.fileno(), stream)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        writes = Writes(out.parent, int(death.at) if death and death.how == "write" else 0)
        writes.watch()
        status = work()
        writes.last = 0
        count.write_text(str(writes.count))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _waited(child: int, start: float, death: Death | None) -> int:
    """Wait for a process's end, and bring it about."""
    at = death.at if death and death.how != "write" else None
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        passed = time.perf_counter() - start
        if death and at is not None and passed >= at:
            os.kill(child, death.number)
            at = None
        if passed > PATIENCE:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)


@dataclass(frozen=True)
class Whole:
    """An uninterrupted run.

    Attributes:
        case: What it was of.
        files: Its files' contents by name, without times.
        seconds: How long it took.
        writes: How many there were.
    """

    case: tiny_kills.Case
    files: dict[str, bytes]
    seconds: float
    writes: int


def whole(case: tiny_kills.Case, folder: Path) -> Whole:
    """Do a run without interruption.

    Raises:
        InputError: It fails.
    """
    out = folder / case.name
    with redirect_stdout(io.StringIO()):  # what it imports, forked processes have
        case.run(folder / f"{case.name}-before")
    found = ended(lambda: case.run(out), out)
    if found.status:
        raise InputError(f"{case.name} ends with {found.status}: {found.said[-200:]}")
    return Whole(case, tiny_kills.files(out, case), found.seconds, found.writes)


@dataclass(frozen=True)
class Trial:
    """A run that died and went on.

    Attributes:
        case: What of.
        deaths: How it died, in order.
        outcome: ``"resumed"``, ``"restarted"``, ``"finished"`` (before it could die), or why it
            is none of them.
        failed: Whether it is none of them.
    """

    case: str
    deaths: tuple[Death, ...]
    outcome: str
    failed: bool = False


def trial(of: Whole, deaths: Sequence[Death], out: Path) -> Trial:
    """Have a run die, and go on, until it is done; compare it with an uninterrupted one."""
    died: list[Death] = []
    outcome = ""
    try:
        for death in [*deaths, None]:
            words, restarts = tiny_kills.onward(out, of.case)
            if not restarts and died:
                outcome = "resumed"
            found = ended(lambda words=words: of.case.run(out, *words), out, death)  # type: ignore[misc]
            _check_end(found, death)
            if tiny_kills.done(out, of.case):
                _check_files(of, out, "" if found.status == 0 else " of a killed process")
            if found.status == 0:
                break
            assert death is not None
            died.append(death)
        left = tiny_kills.untidy(out, of.case)
        _check(not left, f"leaves {left}")
    except AssertionError as error:
        return Trial(of.case.name, tuple(deaths), str(error), failed=True)
    outcome = outcome or ("restarted" if died else "finished")
    return Trial(of.case.name, tuple(died), outcome)


def _check(good: bool, why: str) -> None:
    if not good:
        raise AssertionError(why)


def _check_end(found: Ended, death: Death | None) -> None:
    """Check that a process ended as it should where it was to die so."""
    good = {0}
    if death and death.how == "signal":
        good |= {128 + death.number, -death.number}
    elif death:
        good |= {-signal.SIGKILL}
    _check(found.status in good, f"status {found.status}: {found.said[-500:]}")
    if death and found.status == 128 + death.number:
        last = found.said.strip().splitlines()[-1:]
        _check(last[:1] != [] and last[0].startswith(ADVICE), f"says {found.said[-500:]!r}")
    _check("Traceback" not in found.said, found.said[-500:])


def _check_files(of: Whole, out: Path, whose: str) -> None:
    """Check that a run that says it is done has every file of the uninterrupted one."""
    found = tiny_kills.files(out, of.case)
    other = sorted(
        name for name in found.keys() | of.files.keys() if found.get(name) != of.files.get(name)
    )
    _check(not other, f"result{whose} differs in {other}")


def deaths(of: Whole, kills: int, seed: int) -> Iterator[list[Death]]:
    """Yield how each run dies: of half of them first at a write, evenly, the rest at moments."""
    draw = random.Random(f"{of.case.name} {seed}")
    at_writes = kills // 2 if kills > 1 else kills
    step = max(1.0, of.writes / max(1, at_writes))
    first = draw.random() * step
    for i in range(kills):
        number = 1 + int(first + (i % at_writes) * step) % of.writes
        start = Death("write", number) if i < at_writes else _moment(of, draw)
        more = [_any(of, draw) for _ in range(DEATHS - 1) if draw.random() < 0.35]
        yield [start, *more]


def _any(of: Whole, draw: random.Random) -> Death:
    if draw.random() < 0.5:
        return Death("write", draw.randint(1, of.writes))
    return _moment(of, draw)


def _moment(of: Whole, draw: random.Random) -> Death:
    at = 0.02 + draw.random() * of.seconds  # a process needs a moment to be one of its own
    if draw.random() < 0.3:
        return Death("signal", at, draw.choice(SIGNALS))
    return Death("moment", at)


def trials(of: Whole, kills: int, seed: int, folder: Path) -> Iterator[Trial]:
    """Yield what became of each run."""
    for number, dying in enumerate(deaths(of, kills, seed)):
        out = folder / f"{of.case.name}-{number}"
        yield trial(of, dying, out)
        for path in (out, out.with_suffix(".log"), out.with_suffix(".writes")):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(True)


def report(found: Sequence[Trial]) -> str:
    """Return the counts in words."""
    hows = Counter(death.how for each in found for death in each.deaths)
    lines = [f"{len(found)} runs, killed: {dict(sorted(hows.items()))}"]
    for case in dict.fromkeys(each.case for each in found):
        ends = Counter("failed" if t.failed else t.outcome for t in found if t.case == case)
        lines.append(f"{case}: {', '.join(f'{n} {how}' for how, n in sorted(ends.items()))}")
    return "\n".join(lines)


def failure(each: Trial) -> str:
    """Return what went wrong with a run, and how it died."""
    return f"FAILED {each.case} {each.deaths}: {each.outcome}"


@click.command()
@click.option("--kills", default=200, help="How many runs die, over all kinds of runs.")
@click.option("--seed", default=0)
@click.option("--of", default=",".join(tiny_kills.CASES), help="Which kinds of runs.")
def main(kills: int, seed: int, of: str) -> None:
    """Kill tiny runs anywhere, and see that they end in the same bits."""
    torch.set_num_threads(1)
    names = of.split(",")
    found: list[Trial] = []
    print(where_and_when())
    with tempfile.TemporaryDirectory() as scratch, shown(True, "kills") as told:
        for i, name in enumerate(names):
            one = whole(tiny_kills.CASES[name](), Path(scratch))
            share = kills * (i + 1) // len(names) - kills * i // len(names)
            print(f"{name}: {one.writes} writes, {one.seconds:.1f} s", flush=True)
            for each in trials(one, share, seed, Path(scratch)):
                found.append(each)
                if each.failed:
                    print(failure(each), flush=True)
                if told:
                    told(len(found), kills)
    print(report(found))
    sys.exit(any(each.failed for each in found))


if __name__ == "__main__":
    main()
