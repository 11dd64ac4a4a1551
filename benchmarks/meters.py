"""Does the meter of resident memory count right, and what does training really hold?

python -m benchmarks.meters

Work of known size in processes of their own, then training of MiniLM, whole (gradients and AdamW's
state are 3 times the weights) and with Propulsion. It depends on the machine and its load: no test
does this.
"""

from __future__ import annotations

from dataclasses import replace

import click

from analysis.cost.measurements import PRELOADED
from analysis.cost.memory import memory_of
from analysis.cost.settings import Settings
from analysis.framework.meters import ProcessMemory, apart
from benchmarks.timing import where_and_when
from ntk_propulsion.tasks import load_task

MB = 1_000_000
METHODS = ("full", "propulsion")


def rise_of(before: int, inside: int) -> int:
    """Take and give back ``before`` bytes, then take ``inside``; return the rise."""
    bytearray(b"x") * before
    meter = ProcessMemory()
    bytearray(b"x") * inside
    return meter.rise()


@click.command()
def main() -> None:
    """Measure, and print what was to be expected beside it."""
    print(where_and_when())
    for before, inside in ((0, 150), (300, 50)):
        rise = apart(PRELOADED, rise_of, before * MB, inside * MB)
        print(f"{inside} MB taken after {before} MB were given back: rise {rise / MB:.0f} MB")
    settings, task = Settings(batch_size=4, length=16), load_task("rotten-tomatoes")
    few = replace(task, train=task.train[:4], test=task.test[:1])
    for method in METHODS:
        found = apart((*PRELOADED, "analysis.cost"), memory_of, settings, few, method, 1)
        share = found["rise_bytes"] / found["weights_bytes"]
        print(f"training by {method}: a rise of {share:.2f} times the weights")


if __name__ == "__main__":
    main()
