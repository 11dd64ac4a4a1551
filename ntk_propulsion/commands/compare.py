"""python -m ntk_propulsion.compare: how close is Propulsion's kernel to full fine-tuning's?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from ntk_propulsion.commands.command_line import (
    LOOK,
    Command,
    Interrupted,
    Names,
    Output,
    shared,
    with_output,
)
from ntk_propulsion.errors import InputError
from ntk_propulsion.experiment.experiment import run_experiment
from ntk_propulsion.experiment.materials import prepare
from ntk_propulsion.experiment.settings import Settings
from ntk_propulsion.report import tables
from ntk_propulsion.runs.folder import Run, default_folder
from ntk_propulsion.tasks import known_tasks

DEFAULT = Settings()


@click.command(cls=Command, context_settings=LOOK)
@shared("model", default=DEFAULT.model)
@click.option(
    "--task",
    default=DEFAULT.task,
    help=f"{', '.join(known_tasks())}.",
)
@shared("data")
@shared("examples", default=DEFAULT.examples)
@shared("degree", default=DEFAULT.degree)
@click.option(
    "--positions",
    default=",".join(DEFAULT.positions),
    cls=Names,
    help="What Propulsion scales: all, encoder, embedding, query, key, value, attention_output, "
    "mlp, head, or module patterns.",
)
@click.option(
    "--tunings",
    default="",
    cls=Names,
    help="Kernels beside full and propulsion, e.g. lora bitfit random_subset.  [default: all that "
    "the model has parameters for]",
    show_default=False,
)
@click.option("--head", default=DEFAULT.head, help="probe, random or checkpoint.")
@click.option("--steps", default=DEFAULT.steps, help="Steps of each fine-tuning; 0 for none.")
@click.option("--batch-size", default=DEFAULT.batch_size, help="Examples a step.")
@click.option(
    "--learning-rate", type=float, help="Of full fine-tuning.  [default: chosen by the sweep]"
)
@click.option(
    "--propulsion-learning-rate", type=float, help="Of Propulsion.  [default: chosen by the sweep]"
)
@click.option("--sweep", default=DEFAULT.sweep, help="Learning rates tried per method; 1: none.")
@click.option("--sweep-steps", default=DEFAULT.sweep_steps, help="Steps of each trial, at most.")
@click.option(
    "--trajectories",
    default="",
    cls=Names,
    help="Methods whose kernels are recorded along training, or none.  [default: all of full, "
    "propulsion, lora, adalora, ia3, bitfit, layernorm that the model has something for]",
    show_default=False,
)
@click.option("--trajectory-points", default=DEFAULT.trajectory_points, help="Recorded steps.")
@click.option("--trajectory-examples", default=DEFAULT.trajectory_examples, help="Of the N.")
@click.option("--probe-examples", default=DEFAULT.probe_examples, help="To fit the head on.")
@click.option("--test-examples", default=DEFAULT.test_examples, help="For the task's metric.")
@shared("outputs", default=DEFAULT.outputs)
@shared("seed", default=DEFAULT.seed)
@shared("device", default=DEFAULT.device)
@shared("dtype", default=DEFAULT.dtype)
@shared("memory", default=DEFAULT.memory)
@shared("text-column", default=DEFAULT.text_column)
@shared("pair-column", default=DEFAULT.pair_column)
@shared("label-column", default=DEFAULT.label_column)
@shared("trust-remote-code", is_flag=True)
@shared("out", " [default: runs/TASK-MODEL-TIME]")
@shared("overwrite", is_flag=True)
@shared("resume", is_flag=True)
@with_output
def compare(out: str | None, overwrite: bool, resume: bool, output: Output, **options: Any) -> None:
    """Compare the empirical NTK of full fine-tuning with that of Propulsion.

    Computes both kernels (and those of other tunings) on a real model and task, fine-tunes both
    ways, computes the kernels again, and writes report.json, report.html, kernels.safetensors and
    figures/ into --out.
    """
    settings = Settings(**options)
    settings.check()
    if resume and not out:
        raise InputError("--resume needs --out, the folder of the interrupted run")
    name = f"{Path(settings.task).stem}-{Path(settings.model).name}"
    folder = Path(out) if out else default_folder(name)
    run = Run(folder, asdict(settings))
    run.check(overwrite=overwrite, resume=resume)
    if not (resume and run.complete):
        _do(settings, run, overwrite, output)
    _show(run.report(), output)
    output.end(folder / "report.html", (folder / run.final).read_text())


def _do(settings: Settings, run: Run, overwrite: bool, output: Output) -> None:
    materials = prepare(settings)  # all bad input shows before the folder is touched
    run.begin(overwrite=overwrite)
    try:
        with output.progress() as progress:
            run_experiment(settings, run, materials, progress)
    except KeyboardInterrupt as stop:
        raise Interrupted(
            f"the same command with --resume --out {run.folder} finishes it"
        ) from stop


def _show(report: dict[str, Any], output: Output) -> None:
    console = output.console()
    results = report["results"]
    for table in (tables.summary(results), tables.training(results)):
        if table is not None:
            console.print(table)
    console.print(escape(results["answer"][0]), end="\n\n")
