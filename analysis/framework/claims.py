"""All studies' verdicts in one table: ``python -m analysis.framework.claims``.

Reads ``verdict.json`` of every study under ``--results`` and writes claims.json and claims.md
there; ``--publish`` also puts the table into the package, where every report shows it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.framework.rulebook import RULES
from ntk_propulsion.commands.command_line import Output, run_command
from ntk_propulsion.commands.options import command
from ntk_propulsion.errors import InputError
from ntk_propulsion.report.claims import NOT_TESTABLE
from ntk_propulsion.report.sections import STUDIES
from ntk_propulsion.runs.files import write_atomically
from ntk_propulsion.runs.options import option
from ntk_propulsion.runs.records import to_json

RESULTS = Path(__file__).parents[1] / "results"
COLUMNS = ("id", "statement", "source", "study", "verdict", "measured", "about", "rule")


def gather(results: Path) -> list[dict[str, Any]]:
    """Return every study's verdicts by the order of the rules, then those that were not run.

    Raises:
        InputError: There are no finished studies, or one's verdict.json is damaged.
    """
    found = [_verdicts(path) for path in sorted(results.glob("*/verdict.json"))]
    if not found:
        raise InputError(f"no finished study under {results}: run python -m analysis first")
    judged = [row for rows in found for row in rows]
    order = list(RULES)
    judged.sort(key=lambda row: (order.index(row["id"]), row["study"]))
    seen = {row["id"] for row in judged}
    missing = [
        {
            "id": rule.id,
            "statement": rule.statement,
            "source": rule.source,
            "study": rule.study,
            "verdict": NOT_TESTABLE,
            "measured": "its study has not been run here",
            "about": "",
            "rule": rule.rule,
        }
        for rule in RULES.values()
        if rule.id not in seen
    ]
    return [*judged, *missing]


def _verdicts(path: Path) -> list[dict[str, Any]]:
    try:
        outcome = json.loads(path.read_text())
        rows = [
            {
                **{key: verdict.get(key, "") for key in COLUMNS},
                "study": outcome["study"],
                "command": outcome["command"],
            }
            for verdict in outcome["verdicts"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged: run its study again with --overwrite") from error
    for row in rows:
        if row["id"] not in RULES:
            raise InputError(f"{path} judges {row['id']!r}, which no rule names: run it again")
    return rows


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table as Markdown, and the rules and commands below it."""
    columns = ("id", "statement", "verdict", "measured", "about", "study")
    lines = [
        "# The paper's claims, tested",
        "",
        "Propulsion (arXiv 2409.10927). Each verdict follows from a rule that was written before",
        "the numbers; the rules stand below. Intervals are 95%. What an interval cannot decide is",
        '"not testable here".',
        "",
        f"| {' | '.join(columns)} |",
        f"|{'---|' * len(columns)}",
        *(f"| {' | '.join(_cell(row[key]) for key in columns)} |" for row in rows),
        "",
        "## Rules",
        "",
        *(f"* **{name}** ({rule.source}): {rule.rule}" for name, rule in RULES.items()),
        "",
        "## Commands",
        "",
        *dict.fromkeys(f"* `{row['command']}`" for row in rows if row.get("command")),
    ]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


@dataclass(frozen=True)
class Gathering:
    """Which results are gathered, and whether they are published."""

    results: str = option(str(RESULTS), "Folder of the studies' results.", unset="analysis/results")
    publish: bool = option(False, "Also put the table into the package's reports.")


@command(gathering=Gathering, output=Output)
def claims(gathering: Gathering, output: Output) -> None:
    """Gather the verdicts of all studies into one table of claims."""
    document = write_claims(Path(gathering.results), output)
    if gathering.publish:
        write_atomically(STUDIES, document)


def write_claims(folder: Path, output: Output) -> str:
    """Write the table of claims beside the studies' results, print it, and return it as JSON."""
    rows = gather(folder)
    document = to_json(rows)
    write_atomically(folder / "claims.json", document)
    write_atomically(folder / "claims.md", markdown(rows))
    console = output.console()
    for row in rows:
        console.print(f"[bold]{row['id']:4}[/bold] {row['verdict']:20} {row['statement']}")
    output.end(folder / "claims.md", document)
    return document


if __name__ == "__main__":
    sys.exit(run_command(claims))
