"""The short tables of an audit for the terminal."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from ntk_propulsion.report.tables import LOOK


def verdict_table(results: dict[str, Any]) -> Table:
    """Return the verdicts on every checkpoint, a column each, to fit a terminal."""
    checkpoints = results["checkpoints"]
    table = Table(title=f"Audit against {escape(results['base']['name'])}", **LOOK)
    table.add_column("question", no_wrap=True)
    for each in checkpoints:
        table.add_column(escape(each["name"]))
    for i, verdict in enumerate(checkpoints[0]["verdicts"]):
        answers = [each["verdicts"][i] for each in checkpoints]
        told = [v["words"] if len(checkpoints) == 1 else "" for v in answers]
        cells = [
            escape(f"{v['verdict']}: {more}" if more and more != v["verdict"] else v["verdict"])
            for v, more in zip(answers, told, strict=True)
        ]
        table.add_row(escape(verdict["id"]), *cells)
    return table
