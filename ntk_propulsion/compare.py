"""python -m ntk_propulsion.compare: how close are the kernels of Propulsion and full fine-tuning?"""

from __future__ import annotations

import datetime
import json
import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from ntk_propulsion.command_line import ProgressBar, run_command
from ntk_propulsion.experiment import Settings, prepare, run_experiment
from ntk_propulsion.report import tables
from ntk_propulsion.runs import FINAL, Run
from ntk_propulsion.tasks import TASK_NAMES

DEFAULT = Settings()


def _names(context: click.Context, option: click.Parameter, value: str | None) -> tuple[str, ...]:
    return tuple(name for name in re.split(r"[,\s]+", value or "") if name)


@click.command(context_settings={"show_default": True, "max_content_width": 100})
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
    callback=_names,
    help="What Propulsion scales: all, encoder, embedding, query, key, value, attention_output, "
    "mlp, head, or module patterns.",
)
@click.option(
    "--tunings",
    default="",
    callback=_names,
    help="Kernels beside full and propulsion, e.g. lora,bitfit,random_subset.  [default: all that "
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
@click.option("--text-column", default=DEFAULT.text_column, help="Of a file or hub data set.")
@click.option("--pair-column", default=DEFAULT.pair_column, help="Of a file or hub data set.")
@click.option("--label-column", default=DEFAULT.label_column, help="Of a file or hub data set.")
@click.option("--trust-remote-code", is_flag=True, help="Let code of the checkpoint run.")
@click.option("--out", help="Folder of the results.  [default: runs/TASK-MODEL-TIME]")
@click.option("--overwrite", is_flag=True, help="Remove an earlier run in --out.")
@click.option("--resume", is_flag=True, help="Finish an interrupted run in --out.")
def compare(out: str | None, overwrite: bool, resume: bool, **options: Any) -> int:
    """Compare the empirical NTK of full fine-tuning with that of Propulsion.

    Computes both kernels (and those of other tunings) on a real model and task, fine-tunes both
    ways, computes the kernels again, and writes report.json, report.html, kernels.safetensors and
    figures/ into --out.
    """
    settings = Settings(**options)
    settings.check()
    folder = Path(out) if out else _default_folder(settings)
    materials = prepare(settings)  # all bad input shows before the folder is touched
    run = Run.open(folder, _dependent(settings), overwrite=overwrite, resume=resume)
    if run.complete:
        report = json.loads((folder / FINAL).read_text())
    else:
        with ProgressBar() as progress:
            report = run_experiment(settings, run, materials, progress)
    _show(report, folder)
    return 0


def _show(report: dict[str, Any], folder: Path) -> None:
    console = Console()
    console.print()
    console.print(tables.summary(report["results"]))
    training = tables.training(report["results"])
    if training is not None:
        console.print(training)
    console.print(report["results"]["answer"][0], highlight=False)
    console.print(f"[bold]{folder / 'report.html'}[/bold]", highlight=False, soft_wrap=True)


def _default_folder(settings: Settings) -> Path:
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    names = f"{Path(settings.task).stem}-{Path(settings.model).name}"
    return Path("runs") / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', names)}-{now}"


def _dependent(settings: Settings) -> dict[str, Any]:
    return {field.name: getattr(settings, field.name) for field in fields(settings)}


if __name__ == "__main__":
    sys.exit(run_command(compare))
