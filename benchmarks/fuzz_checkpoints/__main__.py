"""python -m benchmarks.fuzz_checkpoints: damaged files against whole commands.

Mutants of seed S are numbered; each is the same on every machine. ``--start`` goes on where an
earlier run ended: the counts in ``counts.json`` beside this file are then added to.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.fuzz_checkpoints.trial import FAULTS, Bench, Outcome
from benchmarks.fuzz_checkpoints.workers import results
from benchmarks.timing import where_and_when
from ntk_propulsion.runs.bar import shown

COUNTS = Path(__file__).with_name("counts.json")
KEPT = 40
"""Examples of faults that are kept."""


def run(
    seed: int, start: int, mutants: int, workers: int, quiet: bool = True
) -> list[tuple[int, Outcome]]:
    """Try mutants, and return each one's number and outcome.

    Args:
        seed: Of all of them.
        start: The number of the first.
        mutants: How many.
        workers: Processes.
        quiet: No bar.
    """
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    found = []
    memory = Path("/dev/shm")
    with (
        tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder,
        shown(not quiet, "mutants") as tell,
    ):
        bench = Bench(Path(folder))
        for each in results(bench, seed, list(range(start, start + mutants)), workers):
            found.append(each)
            if tell is not None and len(found) % 50 == 0:
                tell(len(found), mutants)
    return found


def counted(found: list[tuple[int, Outcome]]) -> dict[str, Any]:
    """Return the counts of outcomes, of each kind of input too, and examples of faults."""
    outcomes = ("refused", "read", "spent", *FAULTS)
    count = Counter(outcome.what for _, outcome in found)
    kinds: dict[str, Counter[str]] = {}
    for _, outcome in found:
        kinds.setdefault(outcome.kind, Counter())[outcome.what] += 1
    faults = [
        {"mutant": number, "fault": each.what, "kind": each.kind, "words": each.words}
        for number, each in sorted(found, key=lambda pair: pair[0])
        if each.what in FAULTS
    ]
    return {
        "mutants": len(found),
        "outcomes": {name: count[name] for name in outcomes},
        "kinds": {kind: dict(sorted(kinds[kind].items())) for kind in sorted(kinds)},
        "faults": faults[:KEPT],
    }


def added(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Return the counts of two runs together."""
    together = {
        name: before["outcomes"].get(name, 0) + count for name, count in now["outcomes"].items()
    }
    kinds = {
        kind: dict(Counter(before["kinds"].get(kind, {})) + Counter(now["kinds"].get(kind, {})))
        for kind in sorted({*before["kinds"], *now["kinds"]})
    }
    return {
        "mutants": before["mutants"] + now["mutants"],
        "outcomes": together,
        "kinds": kinds,
        "faults": [*before["faults"], *now["faults"]][:KEPT],
    }


@click.command()
@click.option("--mutants", default=100_000, help="How many.")
@click.option("--start", default=0, help="Number of the first; goes on with the counts kept.")
@click.option("--seed", default=0)
@click.option("--workers", type=click.IntRange(1), default=1, help="Processes.")
@click.option("--quiet", is_flag=True, help="No bar.")
@click.option("--keep/--no-keep", default=True, help="Keep the counts in counts.json.")
def main(mutants: int, start: int, seed: int, workers: int, quiet: bool, keep: bool) -> None:
    """Damage files of every kind, run whole commands on them, and count what came of it."""
    began = time.perf_counter()
    counts = counted(run(seed, start, mutants, workers, quiet))
    seconds = time.perf_counter() - began
    print(f"{where_and_when()}\n{mutants} mutants from {start} in {seconds:.0f} s")
    if start and COUNTS.is_file():
        before = json.loads(COUNTS.read_text())
        if before["seed"] == seed and before["mutants"] == start:
            counts = added(before, counts)
    for name, count in counts["outcomes"].items():
        print(f"{count:>8} {name}")
    for fault in counts["faults"]:
        print(f"mutant {fault['mutant']}, {fault['kind']}: {fault['fault']}: {fault['words']}")
    if keep:
        COUNTS.write_text(json.dumps({"seed": seed, **counts}, indent=1) + "\n")
    sys.exit(any(counts["outcomes"][name] for name in FAULTS))


if __name__ == "__main__":
    main()
