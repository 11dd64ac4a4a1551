"""The command line of a study: its settings' options, and those of every run."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from analysis.framework.study import FINAL, Study, execute, failed
from ntk_propulsion.commands.command_line import Output, run_command
from ntk_propulsion.commands.options import LOOK, Command, build, default_of, options_of
from ntk_propulsion.commands.place import Place
from ntk_propulsion.runs.options import option

FAILED_CHECK = 1


@dataclass(frozen=True)
class Mode:
    """How a study is run."""

    quick: bool = option(False, "A small setting, done in under 2 minutes.")
    redraw: bool = option(False, "Judge and draw a finished run anew.")


def main(study: Study[Any], arguments: list[str] | None = None) -> int:
    """Run a study from the command line and return the exit status: 1 where a check fails."""
    return run_command(command_of(study), arguments)


def command_of(study: Study[Any]) -> click.Command:
    """Return the command of a study: its settings' options, and those of every run."""

    def act(**given: Any) -> int:
        mode, place, output = build(Mode, given), build(Place, given), build(Output, given)
        folder = Path(place.out) if place.out else home(mode.quick) / study.name
        if mode.redraw:
            outcome = study.redraw(folder)
        else:
            settings = study.choose(mode.quick, **given)
            outcome = execute(
                study,
                settings,
                folder,
                overwrite=place.overwrite,
                resume=place.resume,
                resume_anyway=place.resume_anyway,
                output=output,
            )
        show(outcome, output.console())
        output.end(folder, (folder / FINAL).read_text())
        return FAILED_CHECK if failed(outcome) else 0

    quick = {
        part.name: f"{default_of(part)}; less with --quick"
        for part in fields(study.settings)
        if part.name in study.quick and default_of(part)
    }
    params = [
        *options_of(Mode),
        *options_of(study.settings, quick),
        *options_of(Place, {"out": "runs/analysis/NAME"}),
        *options_of(Output),
    ]
    return Command(
        study.name, params=params, callback=act, help=study.question, context_settings=LOOK
    )


def home(quick: bool) -> Path:
    """Return the folder that studies write their own folders into, if no other is given."""
    return Path("runs") / ("quick" if quick else "analysis")


def show(outcome: Mapping[str, Any], console: Console) -> None:
    """Print verdicts, and on stderr the checks that failed."""
    table = Table("claim", "verdict", "measured", title=outcome["question"], title_justify="left")
    for verdict in outcome["verdicts"]:
        table.add_row(verdict["id"], verdict["verdict"], escape(verdict["measured"]))
    console.print(table)
    for check in failed(outcome):
        print(f"check failed: {check['name']}: {check['measured']}", file=sys.stderr)
