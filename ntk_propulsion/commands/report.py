"""python -m ntk_propulsion report: the page and the figures of a finished run, drawn anew."""

from __future__ import annotations

from pathlib import Path

import click

from ntk_propulsion.commands.command_line import Interrupted, Output
from ntk_propulsion.commands.options import command
from ntk_propulsion.runs.folder import tidied


@command(output=Output)
@click.argument("folder", type=click.Path(path_type=Path))
def report(folder: Path, output: Output) -> None:
    """Draw page and figures of a finished run anew.

    FOLDER holds what compare or audit wrote: report.json and the arrays beside it. Nothing is
    measured again: report.json stays as it is, report.html and figures/ are replaced.
    """
    from ntk_propulsion.report import render_folder  # here: --help needs no torch

    try:
        with tidied(folder):
            page = render_folder(folder)
    except KeyboardInterrupt as stop:
        raise Interrupted("the same command does it again") from stop
    output.end(page, (folder / "report.json").read_text())
