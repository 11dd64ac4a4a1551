"""Many trials, in guarded processes, kept in a file so that a stopped run goes on."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from multiprocessing.connection import Connection, wait
from pathlib import Path

import torch
import transformers

import ntk_propulsion
from benchmarks.architectures.classes import Candidate
from benchmarks.architectures.trial import Trial, try_class

_HERE = Path(__file__).parent


class Record:
    """Trials that are known already, in a file of one JSON object a line.

    Args:
        path: Of the file.
        fresh: Forget what it holds.
    """

    def __init__(self, path: Path, fresh: bool = False) -> None:
        self.path, self.stamp = path, fingerprint()
        path.parent.mkdir(parents=True, exist_ok=True)
        if fresh:
            path.unlink(missing_ok=True)
        self.known = {trial.name: trial for trial in self._read()}

    def add(self, trial: Trial) -> None:
        """Keep a trial."""
        self.known[trial.name] = trial
        with self.path.open("a") as file:
            file.write(json.dumps({"stamp": self.stamp, **asdict(trial)}) + "\n")

    def _read(self) -> Iterator[Trial]:
        for line in self.path.read_text().splitlines() if self.path.exists() else ():
            entry = json.loads(line)
            if entry.pop("stamp") == self.stamp:
                yield Trial(**entry)


def fingerprint() -> str:
    """Return a digest of all that a trial's verdict depends on."""
    digest = hashlib.sha256(f"{torch.__version__} {transformers.__version__}".encode())
    package = Path(ntk_propulsion.__file__).parent
    ours = [_HERE / name for name in ("classes.py", "tiny.py", "models.py", "trial.py")]
    for path in [*sorted(package.rglob("*.py")), *ours]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class _Worker:
    """A process that tries one class after another, until one is late or takes it down.

    Args:
        seconds: After which a class is given up.
        memory: Bytes of address space; None for no limit.
    """

    def __init__(self, seconds: float, memory: int | None) -> None:
        context = multiprocessing.get_context("spawn")
        self.seconds, self.name = seconds, ""
        self.deadline = 0.0
        self.end, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, memory), daemon=True)
        self.process.start()
        theirs.close()

    def give(self, candidate: Candidate) -> None:
        """Begin with a class."""
        self.name, self.deadline = candidate.name, time.monotonic() + self.seconds
        self.end.send(candidate)

    def outcome(self) -> Trial | None:
        """Return what came of its class, None while it works on it; a dead or late one is over."""
        if self.end.poll():
            try:
                trial: Trial = self.end.recv()
            except (EOFError, OSError):
                self.process.join()
                why = f"its process died, status {self.process.exitcode}"
                return self._over(Trial(self.name, "raw error", note=why))
            self.name = ""
            return trial
        if time.monotonic() > self.deadline:
            why = f"not done after {self.seconds:.0f} s"
            return self._over(Trial(self.name, "raw error", note=why))
        return None

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.join()
        self.end.close()

    def _over(self, trial: Trial) -> Trial:
        self.stop()
        return trial


def _work(end: Connection, memory: int | None) -> None:
    if memory is not None:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    while True:
        end.send(try_class(end.recv()))


def sweep(
    chosen: Sequence[Candidate],
    record: Record,
    *,
    jobs: int = 1,
    seconds: float = 60,
    memory: int | None = None,
    tell: Callable[[int, int], None] | None = None,
) -> list[Trial]:
    """Try all classes that are not known yet; return the trials of all, in order.

    Args:
        chosen: The classes.
        record: What is known; each trial is added as soon as it is done.
        jobs: Processes at once.
        seconds: After which a class is given up.
        memory: Bytes of address space of each process; None for no limit.
        tell: Called with (done, in all).
    """
    waiting = [each for each in reversed(chosen) if each.name not in record.known]
    workers: list[_Worker] = []
    done = len(chosen) - len(waiting)
    try:
        while waiting or any(worker.name for worker in workers):
            workers = [worker for worker in workers if not worker.end.closed]
            while len(workers) < min(jobs, len(waiting)):
                workers.append(_Worker(seconds, memory))
            for worker in workers:
                if waiting and not worker.name:
                    worker.give(waiting.pop())
            busy = [worker for worker in workers if worker.name]
            wait([worker.end for worker in busy], timeout=0.5)
            for trial in filter(None, [worker.outcome() for worker in busy]):
                record.add(trial)
                done += 1
            if tell is not None:
                tell(done, len(chosen))
    finally:
        for worker in workers:
            if not worker.end.closed:
                worker.stop()
    return [record.known[each.name] for each in chosen]
