"""python -m ntk_propulsion.compare: how close is Propulsion's kernel to full fine-tuning's?"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from ntk_propulsion.command_line import Command, Interrupted, Names, ProgressBar, run_command
from ntk_propulsion.errors import InputError
from ntk_propulsion.experiment import run_experiment
from ntk_propulsion.materials import prepare
from ntk_propulsion.report import tables
from ntk_propulsion.runs import Run, default_folder
from ntk_propulsion.settings import Settings
from ntk_propulsion.tasks import TASK_NAMES

DEFAULT = Settings()


@click.command(cls=Command, context_settings={"show_default": True, "max_content_width": 100})
@click.option("--model", default=DEFAULT.model, help="minilm, a Hugging Face folder, or a hub id.")
@click.option(
    "--task",
    default=DEFAULT.task,
    help=f"{', '.join(TASK_NAMES)}, a .csv/.tsv/.jsonl file, or hub:NAME.",
)
@click.option("--data", help="Folder of GLUE tasks in their original TSV layout.")
@click.option("--examples", default=DEFAULT.examples, help="N, examples of the kernels.")
@click.option("--degree", default=DEFAULT.degree, help="Propulsion's k: gains are z**k.")
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
@click.option("--learning-rate", default=DEFAULT.learning_rate, help="Of full fine-tuning.")
@click.option("--propulsion-learning-rate", default=DEFAULT.propulsion_learning_rate)
@click.option("--probe-examples", default=DEFAULT.probe_examples, help="To fit the head on.")
@click.option("--test-examples", default=DEFAULT.test_examples, help="For the task's metric.")
@click.option("--outputs", default=DEFAULT.outputs, help="Kernels of logits, margin or sum.")
@click.option("--seed", default=DEFAULT.seed, help="Fixes everything.")
@click.option("--device", default=DEFAULT.device, help="cpu, cuda, cuda:1 ...")
@click.option("--dtype", default=DEFAULT.dtype, help="float32 or float64, for the kernels.")
@click.option("--memory", default=DEFAULT.memory, help="For the kernels, beside the model.")
@click.option("--text-column", default=DEFAULT.text_column, help="Of a file or hub data set.")
@click.option("--pair-column", default=DEFAULT.pair_column, help="Of a file or hub data set.")
@click.option("--label-column", default=DEFAULT.label_column, help="Of a file or hub data set.")
@click.option("--trust-remote-code", is_flag=True, help="Let code of the checkpoint run.")
@click.option("--out", help="Folder of the results.  [default: runs/TASK-MODEL-TIME]")
@click.option("--overwrite", is_flag=True, help="Remove an earlier run in --out.")
@click.option("--resume", is_flag=True, help="Finish an interrupted run in --out.")
def compare(out: str | None, overwrite: bool, resume: bool, **options: Any) -> None:
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
        _do(settings, run, overwrite)
    _show(run.report(), folder)


def _do(settings: Settings, run: Run, overwrite: bool) -> None:
    materials = prepare(settings)  # all bad input shows before the folder is touched
    run.begin(overwrite=overwrite)
    try:
        with ProgressBar() as progress:
            run_experiment(settings, run, materials, progress)
    except KeyboardInterrupt as stop:
        raise Interrupted(
            f"the same command with --resume --out {run.folder} finishes it"
        ) from stop


def _show(report: dict[str, Any], folder: Path) -> None:
    console = Console(highlight=False)
    results = report["results"]
    for table in (tables.summary(results), tables.training(results)):
        if table is not None:
            console.print(table)
    console.print(escape(results["answer"][0]), end="\n\n")
    console.print(f"[bold]{escape(str(folder / 'report.html'))}[/bold]", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(run_command(compare))
