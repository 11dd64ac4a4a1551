"""python -m ntk_propulsion.compare: how close is Propulsion's kernel to full fine-tuning's?"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path

from rich.markup import escape

from ntk_propulsion.commands.command_line import Output
from ntk_propulsion.commands.options import command
from ntk_propulsion.commands.place import Place
from ntk_propulsion.experiment.settings import Settings
from ntk_propulsion.runs.folder import Run


@command({"out": "runs/TASK-MODEL-TIME"}, settings=Settings, place=Place, output=Output)
def compare(settings: Settings, place: Place, output: Output) -> None:
    """Compare the empirical NTK of full fine-tuning with that of Propulsion.

    Computes both kernels (and those of other tunings) on a real model and task, fine-tunes both
    ways, computes the kernels again, and writes report.json, report.html, kernels.safetensors and
    figures/ into --out.
    """
    settings.check()
    name = f"{Path(settings.task).stem}-{Path(settings.model).name}"
    with place.held(name, asdict(settings)) as run:
        if not place.holds(run):
            _do(settings, run, place.overwrite, output)
        _show(run.folder, output)
        output.end(run.folder / "report.html", (run.folder / run.final).read_text())


def _do(settings: Settings, run: Run, overwrite: bool, output: Output) -> None:
    from ntk_propulsion.experiment.experiment import run_experiment  # here: --help needs no torch
    from ntk_propulsion.experiment.materials import prepare
    from ntk_propulsion.report.writer import write_experiment

    materials = prepare(settings)  # all bad input shows before the folder is touched
    run.begin(overwrite=overwrite)
    with output.progress() as progress:
        write = partial(write_experiment, folder=run.folder)
        run_experiment(settings, run, materials, progress, write)


def _show(folder: Path, output: Output) -> None:
    from ntk_propulsion.report import tables
    from ntk_propulsion.report.reading import read_report

    console = output.console()
    results = read_report(folder).results
    for table in (tables.summary(results), tables.training(results)):
        if table is not None:
            console.print(table)
    console.print(escape(results.answer[0]), end="\n\n")
