"""python -m ntk_propulsion.audit: what was tuned, is it what it says, is it a Propulsion?"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from rich.markup import escape

from ntk_propulsion.auditing.gates import GATES, failed, parse_gates
from ntk_propulsion.auditing.settings import AuditSettings
from ntk_propulsion.commands.command_line import LINE, Output
from ntk_propulsion.commands.limits import Limits
from ntk_propulsion.commands.options import command
from ntk_propulsion.commands.place import Place
from ntk_propulsion.errors import one_line
from ntk_propulsion.runs.folder import Run
from ntk_propulsion.runs.options import option

if TYPE_CHECKING:
    from ntk_propulsion.auditing.results import Audit

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
    limits=Limits,
    output=Output,
)
def audit(
    settings: AuditSettings, demands: Demands, place: Place, limits: Limits, output: Output
) -> int:
    """Audit checkpoints that are already trained.

    Compares every tensor with the base's, reads scaling vectors, measures how much of the update is
    a Propulsion and, given a task, kernels and regime; writes report.json, report.html and figures/
    into --out. Nothing of a checkpoint is run.
    """
    settings.check()
    gates = parse_gates(demands.fail_on, settings.task)
    with place.held(f"audit-{settings.names[0]}", asdict(settings)) as run:
        with limits.budget():
            found = _kept(run) if place.holds(run) else _do(settings, run, place.overwrite, output)
        _show(found, output)
        output.end(run.folder / "report.html", (run.folder / run.final).read_text())
    failures = failed(gates, found.checkpoints)
    if failures:
        print(one_line(f"failed: {'; '.join(failures)}", LINE), file=sys.stderr)
    return FAILED if failures else 0


def _kept(run: Run) -> Audit:
    from ntk_propulsion.report.audit_writer import read_audit

    return read_audit(run.folder)


def _do(settings: AuditSettings, run: Run, overwrite: bool, output: Output) -> Audit:
    """Do the audit and write its folder, which is made once all bad names and shapes have shown."""
    from ntk_propulsion.auditing.audit import open_audit, run_audit  # here: --help needs no torch
    from ntk_propulsion.report.audit_writer import write_audit

    with output.progress() as progress:
        found = run_audit(open_audit(settings), progress)
        run.begin(overwrite=overwrite)
        write_audit(found, run.folder)
        run.clean()
        return found


def _show(audit: Audit, output: Output) -> None:
    from ntk_propulsion.report.audit_tables import verdict_table

    console = output.console()
    console.print(verdict_table(audit.results))
    for line in audit.answer:
        console.print(escape(line), end="\n\n")
