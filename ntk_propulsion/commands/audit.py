"""python -m ntk_propulsion.audit: what was tuned, is it what it says, is it a Propulsion?"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import Any

from rich.markup import escape

from ntk_propulsion.auditing.gates import GATES, Gate, failed, parse_gates
from ntk_propulsion.auditing.settings import AuditSettings
from ntk_propulsion.commands.command_line import Interrupted, Output
from ntk_propulsion.commands.options import command
from ntk_propulsion.commands.place import Place
from ntk_propulsion.runs.folder import Run
from ntk_propulsion.runs.options import option

FAILED = 3


@dataclass(frozen=True)
class Demands:
    """What a pipeline demands of an audit."""

    fail_on: tuple[str, ...] = option((), f"Exit with 3 if one fails: {', '.join(GATES)}.")


@command(
    {"out": "runs/audit-NAME-TIME"},
    settings=AuditSettings,
    demands=Demands,
    place=Place,
    output=Output,
)
def audit(settings: AuditSettings, demands: Demands, place: Place, output: Output) -> int:
    """Audit checkpoints that are already trained.

    Compares every tensor with the base's, reads scaling vectors, measures how much of the update is
    a Propulsion and, given a task, kernels and regime; writes report.json, report.html and figures/
    into --out. Nothing of a checkpoint is run.
    """
    settings.check()
    gates = parse_gates(demands.fail_on, settings.task)
    run = place.run(f"audit-{settings.names[0]}", asdict(settings))
    if not place.holds(run):
        _do(settings, run, place.overwrite, output)
    report = run.report()
    _show(report["results"], output)
    output.end(run.folder / "report.html", (run.folder / run.final).read_text())
    return _gate(gates, report)


def _do(settings: AuditSettings, run: Run, overwrite: bool, output: Output) -> None:
    from ntk_propulsion.auditing.audit import open_audit, run_audit  # here: --help needs no torch

    try:
        with output.progress() as progress:
            opened = open_audit(settings)  # all bad names and shapes show before the folder is made
            found = run_audit(opened, progress)
            run.begin(overwrite=overwrite)
            found.write(run.folder)
    except KeyboardInterrupt as stop:
        raise Interrupted("the same command does it again") from stop


def _show(results: dict[str, Any], output: Output) -> None:
    from ntk_propulsion.report.audit_tables import verdict_table

    console = output.console()
    console.print(verdict_table(results))
    for line in results["answer"]:
        console.print(escape(line), end="\n\n")


def _gate(gates: list[Gate], report: dict[str, Any]) -> int:
    """Say which rules failed, on one line, and return the exit status."""
    found = failed(gates, report["results"]["checkpoints"])
    if found:
        print(" ".join(f"failed: {'; '.join(found)}".split()), file=sys.stderr)
    return FAILED if found else 0
