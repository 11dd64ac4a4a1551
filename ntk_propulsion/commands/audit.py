"""python -m ntk_propulsion.audit: what was tuned, is it what it says, is it a Propulsion?"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from ntk_propulsion.auditing.audit import open_audit, run_audit
from ntk_propulsion.auditing.gates import GATES, failed, parse_gates
from ntk_propulsion.auditing.results import Audit
from ntk_propulsion.auditing.settings import AuditSettings
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
from ntk_propulsion.report.audit_tables import verdict_table
from ntk_propulsion.report.audit_writer import VECTORS, read_audit, write_audit
from ntk_propulsion.runs.folder import OWN, Run, default_folder
from ntk_propulsion.tasks import known_tasks

FAILED = 3
DEFAULT = AuditSettings("", ())


@click.command(cls=Command, context_settings=LOOK)
@click.option("--base", required=True, help="minilm, a Hugging Face folder, a file, or a hub id.")
@click.option(
    "--tuned",
    required=True,
    multiple=True,
    help="A checkpoint: folder, file, adapter or hub id. Several times to compare.",
)
@shared("degree", "For checkpoints that do not record it.", type=int)
@click.option(
    "--task",
    help=f"{', '.join(known_tasks())}. Without it, no kernels.",
)
@shared("data")
@shared("examples", default=DEFAULT.examples)
@click.option(
    "--fail-on",
    default="",
    cls=Names,
    help=f"Exit with 3 if one fails: {', '.join(GATES)}.",
    show_default=False,
)
@click.option("--spectra/--no-spectra", default=DEFAULT.spectra, help="Ranks and closest LoRAs.")
@shared("outputs", default=DEFAULT.outputs)
@shared("seed", default=DEFAULT.seed)
@shared("device", default=DEFAULT.device)
@shared("dtype", default=DEFAULT.dtype)
@shared("memory", default=DEFAULT.memory)
@shared("text-column", default=DEFAULT.text_column)
@shared("pair-column", default=DEFAULT.pair_column)
@shared("label-column", default=DEFAULT.label_column)
@shared("trust-remote-code", is_flag=True)
@shared("out", " [default: runs/audit-NAME-TIME]")
@shared("overwrite", is_flag=True)
@shared("resume", is_flag=True)
@with_output
def audit(
    out: str | None,
    overwrite: bool,
    resume: bool,
    fail_on: tuple[str, ...],
    output: Output,
    **options: Any,
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
    run = Run(folder, asdict(settings), own=(*OWN, VECTORS))
    run.check(overwrite=overwrite, resume=resume)
    done = resume and run.complete
    found = read_audit(folder) if done else _do(settings, run, overwrite, output)
    _show(found, output)
    output.end(folder / "report.html", (folder / run.final).read_text())
    failures = failed(gates, found.checkpoints)
    if failures:
        print(" ".join(f"failed: {'; '.join(failures)}".split()), file=sys.stderr)
    return FAILED if failures else 0


def _do(settings: AuditSettings, run: Run, overwrite: bool, output: Output) -> Audit:
    """Do the audit and write its folder, which is made once all bad names and shapes have shown."""
    try:
        with output.progress() as progress:
            found = run_audit(open_audit(settings), progress)
            run.begin(overwrite=overwrite)
            write_audit(found, run.folder)
            return found
    except KeyboardInterrupt as stop:
        raise Interrupted("the same command does it again") from stop


def _show(audit: Audit, output: Output) -> None:
    console = output.console()
    console.print(verdict_table(audit.results))
    for line in audit.answer:
        console.print(escape(line), end="\n\n")
