"""Does the engine keep to its memory budget? Peak of the process beyond the model itself.

python -m benchmarks.memory [--model mpnet] [--examples 256] [--tokens 64] [--memory 8GiB]
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import click

from benchmarks.models import minilm, mpnet, random_words
from benchmarks.timing import where_and_when
from ntk_propulsion import empirical_ntk

MODELS = {"minilm": minilm, "mpnet": mpnet}
GIB = 2**30


def resident(field: str) -> int:
    """Return VmRSS (now) or VmHWM (peak since the last reset) of this process, in bytes."""
    status = Path("/proc/self/status").read_text()
    match = re.search(rf"{field}:\s+(\d+) kB", status)
    assert match is not None
    return int(match[1]) * 1024


@click.command()
@click.option("--model", default="mpnet", type=click.Choice(sorted(MODELS)))
@click.option("--examples", default=256)
@click.option("--tokens", default=64)
@click.option("--memory", default="8GiB")
def main(model: str, examples: int, tokens: int, memory: str) -> None:
    """Compute the full and the Propulsion kernel within a budget."""
    network, batch = MODELS[model](), random_words(examples, tokens)
    empirical_ntk(network, random_words(2, 4))  # libraries and threads are up
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # peak := now
    start = time.perf_counter()
    kernels = empirical_ntk(network, batch, ["full", "propulsion"], memory=memory)
    seconds = time.perf_counter() - start
    peak = resident("VmHWM") - before
    plan = kernels.plan
    assert plan is not None
    print(where_and_when())
    print(f"{model}, N = {examples}, T = {tokens}, O = 2, full and propulsion: {seconds:.0f} s")
    print(f"plan: {plan}")
    print(
        f"peak beyond the model: {peak / GIB:.2f} GiB of {plan.budget / GIB:.2f} "
        f"({peak / plan.budget:.0%}); expected {sum(plan.expected.values()) / GIB:.2f} GiB"
    )


if __name__ == "__main__":
    main()
