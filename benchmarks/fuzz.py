"""Is the kernel of a random small model ever wrong?

python -m benchmarks.fuzz [--models 20000] [--seed 0] [--minutes M] [--processes 2]: the models of
seeds seed, seed + 1, ... as `tests.kernels.random_models` writes them. Prints how many passed, were
refused, or came out wrong, with the source of each that did; exit status 1 if any is wrong.
"""

from __future__ import annotations

import multiprocessing
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

import click
import torch

from benchmarks.timing import where_and_when
from ntk_propulsion.runs.bar import shown
from tests.kernels.random_judge import COMPUTABLE, INVALID, OUTCOMES, UNCLEAR, WRONG, verdict
from tests.kernels.random_models import random_case

BLOCK = 20
CONTEXT = multiprocessing.get_context("forkserver")  # a new process starts in no time
CONTEXT.set_forkserver_preload([random_case.__module__, verdict.__module__])
LISTED = 20
Found = tuple[int, str, str, str]
"""Seed, outcome, why, and the source of a model that is wrong."""


def tried(seeds: range) -> list[Found]:
    torch.set_num_threads(1)
    return [_tried(seed) for seed in seeds]


def _tried(seed: int) -> Found:
    case, found = verdict(seed)
    return seed, found.outcome, found.why, str(case) if found.outcome == WRONG else ""


def blocks(seed: int, models: int) -> list[range]:
    end = seed + models
    return [range(start, min(start + BLOCK, end)) for start in range(seed, end, BLOCK)]


def results(seed: int, models: int, minutes: float | None, processes: int) -> Iterator[list[Found]]:
    """Yield blocks as they are done, until all are or the time is up."""
    end = time.monotonic() + 60 * (minutes or float("inf"))
    work = iter(blocks(seed, models))
    died: list[range] = []
    while True:
        with ProcessPoolExecutor(processes, CONTEXT) as pool:
            try:
                yield from _pooled(pool, work, processes, end, died)
            except BrokenProcessPool:  # one of these crashed its process, and the others with it
                pass
            else:
                return
        while died:
            yield [_apart(seed) for seed in died.pop()]


def _pooled(
    pool: Executor, work: Iterator[range], processes: int, end: float, running: list[range]
) -> Iterator[list[Found]]:
    """Yield what a pool finds; the blocks that it works on stand in ``running``."""
    tasks: dict[Future[list[Found]], range] = {}
    while True:
        while len(tasks) < 2 * processes and time.monotonic() < end:
            block = next(work, None)
            if block is None:
                break
            running.append(block)
            tasks[pool.submit(tried, block)] = block
        if not tasks:
            return
        done, _ = wait(tasks, return_when=FIRST_COMPLETED)
        for task in done:
            found = task.result()
            running.remove(tasks.pop(task))
            yield found


def _apart(seed: int) -> Found:
    """Try a model in a process of its own: it may end without a word."""
    with ProcessPoolExecutor(1, CONTEXT) as pool:
        try:
            return pool.submit(_tried, seed).result()
        except BrokenProcessPool:
            return seed, WRONG, "the process died", str(random_case(random.Random(seed)))


def reasons(found: list[Found], outcome: str) -> str:
    """Return the commonest reasons of an outcome, with a seed of each."""
    count: Counter[str] = Counter()
    first: dict[str, int] = {}
    for seed, what, why, _ in found:
        if what == outcome:
            kind = re.sub(r"'m[\w.]*'|[mp]\d+[\w.]*|\d+", "#", why[:100])
            count[kind] += 1
            first.setdefault(kind, seed)
    return "\n".join(f"  {n} x {why} (seed {first[why]})" for why, n in count.most_common(LISTED))


def report(found: list[Found], seconds: float) -> str:
    count = Counter(outcome for _, outcome, _, _ in found)
    lines = [f"{len(found)} models in {seconds:.0f} s, {len(found) / seconds:.1f} a second"]
    for outcome in OUTCOMES:
        lines.append(f"{count[outcome]:>8} {count[outcome] / max(len(found), 1):7.2%} {outcome}")
    for outcome in (COMPUTABLE, UNCLEAR, INVALID, WRONG):
        if count[outcome]:
            lines += [f"{outcome}:", reasons(found, outcome)]
    for seed, outcome, why, source in sorted(found):
        if outcome == WRONG:
            lines += ["", f"--- WRONG, seed {seed}: {why}", source]
    return "\n".join(lines)


@click.command()
@click.option("--models", default=20_000, help="How many.")
@click.option("--seed", default=0, help="Of the first; each model has the next.")
@click.option("--minutes", type=float, help="Stop after so many.")
@click.option("--processes", type=click.IntRange(1), default=1)
@click.option("--quiet", is_flag=True, help="No bar.")
def main(models: int, seed: int, minutes: float | None, processes: int, quiet: bool) -> None:
    """Try random models, and print what came of them."""
    start, found = time.perf_counter(), []
    with shown(not quiet, "models") as tell:
        for block in results(seed, models, minutes, processes):
            found += block
            if tell is not None:
                tell(len(found), models)
    print(where_and_when())
    print(f"python -m benchmarks.fuzz --models {models} --seed {seed}")
    print(report(found, time.perf_counter() - start))
    sys.exit(any(outcome == WRONG for _, outcome, _, _ in found))


if __name__ == "__main__":
    main()
