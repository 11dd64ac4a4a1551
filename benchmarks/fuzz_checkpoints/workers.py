"""Processes that try one mutant after the other; one that dies or hangs is replaced."""

from __future__ import annotations

import json
import os
import select
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.fuzz_checkpoints.trial import Bench, Outcome
from benchmarks.fuzz_checkpoints.tripwires import Tripwires

LIMIT = 30.0
"""Seconds after which a mutant hangs: three times the budget that it has."""
BATCH = 500
"""Mutants of a process: what one leaves behind does not go on for ever."""
Found = tuple[int, Outcome]


@dataclass
class _Worker:
    """A process: the mutants it has yet to try, and when it last said something."""

    pid: int
    pipe: int
    todo: list[int]
    heard: float
    rest: bytes = b""


def results(bench: Bench, seed: int, numbers: list[int], workers: int) -> Iterator[Found]:
    """Yield each mutant's number and outcome, in the order in which they come."""
    batches = [numbers[i : i + BATCH] for i in range(0, len(numbers), BATCH)][::-1]
    running: list[_Worker] = []
    while batches or running:
        while batches and len(running) < workers:
            running.append(_start(bench, seed, batches.pop()))
        ready, _, _ = select.select([each.pipe for each in running], [], [], 1.0)
        for worker in list(running):
            if worker.pipe in ready:
                data = os.read(worker.pipe, 1 << 16)
                yield from _heard(worker, data)
                ended = not data
            else:
                ended = time.monotonic() - worker.heard > LIMIT
            if ended:
                running.remove(worker)
                yield from _ended(bench, seed, worker, hung=worker.pipe not in ready)
                if worker.todo:
                    batches.append(worker.todo)


def _start(bench: Bench, seed: int, numbers: list[int]) -> _Worker:
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(out)
            _work(bench, seed, numbers, into)
        finally:
            os._exit(0)
    os.close(into)
    return _Worker(pid, out, list(numbers), time.monotonic())


def _work(bench: Bench, seed: int, numbers: list[int], pipe: int) -> None:
    """Try mutants and tell of each as soon as it is done."""
    with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        os.chdir(folder)
        tempfile.tempdir = folder
        noise = os.open("noise", os.O_WRONLY | os.O_CREAT)  # what libraries print past Python
        os.dup2(noise, 1)
        os.dup2(noise, 2)
        wires = Tripwires(bench.folder)
        for number in numbers:
            outcome = bench.trial(seed, number, wires, Path(folder) / "trial")
            os.write(pipe, json.dumps([number, asdict(outcome)]).encode() + b"\n")


def _heard(worker: _Worker, data: bytes) -> Iterator[Found]:
    *lines, worker.rest = (worker.rest + data).split(b"\n")
    for line in lines:
        number, outcome = json.loads(line)
        worker.todo.remove(number)
        worker.heard = time.monotonic()
        yield number, Outcome(**outcome)


def _ended(bench: Bench, seed: int, worker: _Worker, hung: bool) -> Iterator[Found]:
    """Collect a process; if it had not tried all, the next mutant ended it."""
    if hung:
        os.kill(worker.pid, signal.SIGKILL)
    _, status = os.waitpid(worker.pid, 0)
    os.close(worker.pipe)
    if worker.todo:
        number = worker.todo.pop(0)
        kind, _, what = bench.case(seed, number)
        words = "over the limit" if hung else f"ended with status {status}"
        yield number, Outcome("hang" if hung else "crash", kind, f"{what}: {words}")
