"""Try every text model class of transformers, tiny, and write the page that lists them.

python -m benchmarks.architectures [--only REGEX] [--out docs/architectures.md] [--jobs N]

Classes run in processes that may be lost, with a limit on time and memory. What came of each is
kept under build/, so that a run that was stopped goes on; a change of the package begins anew.
"""

from __future__ import annotations

import re
from pathlib import Path

import click

from benchmarks.architectures.classes import candidates, other_input
from benchmarks.architectures.page import page
from benchmarks.architectures.sweep import Record, sweep
from ntk_propulsion.runs.bar import shown


@click.command()
@click.option("--only", default="", help="Classes whose name matches; they are printed, no page.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/architectures.md"))
@click.option("--jobs", default=1, show_default=True, help="Processes at once.")
@click.option("--seconds", default=60.0, show_default=True, help="For one class.")
@click.option("--memory", default=8, show_default=True, help="GiB of address space for one class.")
@click.option("--fresh", is_flag=True, help="Try again what is known already.")
def main(only: str, out: Path, jobs: int, seconds: float, memory: int, fresh: bool) -> None:
    """Try the classes and write the page."""
    every = candidates()
    chosen = [each for each in every if re.search(only, each.name)]
    left_out = {each.name: sense for each in chosen if (sense := other_input(each))}
    record = Record(Path("build/architectures.jsonl"), fresh)
    with shown(True, "model classes") as tell:
        trials = sweep(
            [each for each in chosen if each.name not in left_out],
            record,
            jobs=jobs,
            seconds=seconds,
            memory=memory << 30,
            tell=tell,
        )
    if only:
        for trial in trials:
            print(trial)
        return
    out.write_text(page(every, trials, left_out))


if __name__ == "__main__":
    main()
