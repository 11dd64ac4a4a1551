"""The short tables of an audit for the terminal."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from ntk_propulsion.auditing.judgements import Verdict
from ntk_propulsion.auditing.results import AuditResults
from ntk_propulsion.report.tables import LOOK


def verdict_table(results: AuditResults) -> Table:
    """Return the verdicts on every checkpoint, a column each, to fit a terminal."""
    checkpoints = results.checkpoints
    table = Table(title=f"Audit against {escape(results.base.name)}", **LOOK)
    table.add_column("question", no_wrap=True)
    for of in checkpoints:
        table.add_column(escape(of.name))
    for answers in zip(*(of.verdicts for of in checkpoints), strict=True):
        cells = (_cell(verdict, alone=len(checkpoints) == 1) for verdict in answers)
        table.add_row(escape(answers[0].id), *cells)
    return table


def _cell(verdict: Verdict, alone: bool) -> str:
    """Write a verdict, in words too where it stands alone."""
    said = alone and verdict.words and verdict.words != verdict.verdict
    return escape(f"{verdict.verdict}: {verdict.words}" if said else verdict.verdict)
