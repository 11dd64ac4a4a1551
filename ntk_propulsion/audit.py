"""python -m ntk_propulsion.audit: what was tuned, is it what it says, is it a Propulsion?"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from ntk_propulsion.auditing.audit import open_audit, run_audit
from ntk_propulsion.auditing.gates import GATES, Gate, failed, parse_gates
from ntk_propulsion.auditing.settings import AuditSettings
from ntk_propulsion.command_line import Command, Interrupted, Names, ProgressBar, run_command
from ntk_propulsion.errors import InputError
from ntk_propulsion.report.audit_tables import verdict_table
from ntk_propulsion.runs import Run, default_folder
from ntk_propulsion.tasks import TASK_NAMES

FAILED = 3
DEFAULT = AuditSettings("", ())


@click.command(cls=Command, context_settings={"show_default": True, "max_content_width": 100})
@click.option("--base", required=True, help="minilm, a Hugging Face folder, a file, or a hub id.")
@click.option(
    "--tuned",
    required=True,
    multiple=True,
    help="A checkpoint: folder, file, adapter or hub id. Several times to compare.",
)
@click.option("--degree", type=int, help="k of the gains z**k, where the checkpoint is silent.")
@click.option(
    "--task",
    help=f"Measure kernels on it: {', '.join(TASK_NAMES)}, a .csv/.tsv/.jsonl file, or hub:NAME.",
)
@click.option("--data", help="Folder of GLUE tasks in their original TSV layout.")
@click.option("--examples", default=DEFAULT.examples, help="N, examples of the kernels.")
@click.option(
    "--fail-on",
    default="",
    cls=Names,
    help=f"Exit with 3 if one fails: {', '.join(GATES)}.",
)
@click.option("--spectra/--no-spectra", default=DEFAULT.spectra, help="Ranks and closest LoRAs.")
@click.option("--outputs", default=DEFAULT.outputs, help="Kernels of logits, margin or sum.")
@click.option("--seed", default=DEFAULT.seed, help="Fixes everything.")
@click.option("--device", default=DEFAULT.device, help="cpu, cuda, cuda:1 ...")
@click.option("--dtype", default=DEFAULT.dtype, help="float32 or float64, for the kernels.")
@click.option("--memory", default=DEFAULT.memory, help="For the kernels, beside the models.")
@click.option("--text-column", default=DEFAULT.text_column, help="Of a file or hub data set.")
@click.option("--pair-column", default=DEFAULT.pair_column, help="Of a file or hub data set.")
@click.option("--label-column", default=DEFAULT.label_column, help="Of a file or hub data set.")
@click.option("--trust-remote-code", is_flag=True, help="Let code of the base run.")
@click.option("--out", help="Folder of the results.  [default: runs/audit-NAME-TIME]")
@click.option("--overwrite", is_flag=True, help="Remove an earlier audit in --out.")
@click.option("--resume", is_flag=True, help="Show the audit in --out; do it, if it is unfinished.")
def audit(
    out: str | None, overwrite: bool, resume: bool, fail_on: tuple[str, ...], **options: Any
) -> int:
    """Audit checkpoints that are already trained.

    Compares every tensor with the base's, reads scaling vectors, measures how much of the update is
    a Propulsion and, given a task, kernels and regime; writes report.json, report.html and figures/
    into --out. Nothing of a checkpoint is run.
    """
    settings = AuditSettings(**{**options, "tuned": tuple(options["tuned"])})
    settings.check()
    gates = parse_gates(fail_on, settings.task)
    if resume and not out:
        raise InputError("--resume needs --out, the folder of the audit")
    folder = Path(out) if out else default_folder(f"audit-{settings.names[0]}")
    run = Run(folder, asdict(settings))
    run.check(overwrite=overwrite, resume=resume)
    if not (resume and run.complete):
        _do(settings, run, overwrite)
    report = run.report()
    _show(report["results"], folder)
    return _gate(gates, report)


def _do(settings: AuditSettings, run: Run, overwrite: bool) -> None:
    try:
        with ProgressBar() as progress:
            opened = open_audit(settings)  # all bad names and shapes show before the folder is made
            found = run_audit(opened, progress)
            run.begin(overwrite=overwrite)
            found.write(run.folder)
    except KeyboardInterrupt as stop:
        raise Interrupted("the same command does it again") from stop


def _show(results: dict[str, Any], folder: Path) -> None:
    console = Console(highlight=False)
    console.print(verdict_table(results))
    for line in results["answer"]:
        console.print(escape(line), end="\n\n")
    console.print(f"[bold]{escape(str(folder / 'report.html'))}[/bold]", soft_wrap=True)


def _gate(gates: list[Gate], report: dict[str, Any]) -> int:
    """Say which rules failed, on one line, and return the exit status."""
    found = failed(gates, report["results"]["checkpoints"])
    if found:
        print(" ".join(f"failed: {'; '.join(found)}".split()), file=sys.stderr)
    return FAILED if found else 0


if __name__ == "__main__":
    sys.exit(run_command(audit))
