"""Writes the report of an experiment into a folder; report.json comes last."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from matplotlib.figure import Figure

from ntk_propulsion.experiment.results import Arrays, Experiment
from ntk_propulsion.figures import style
from ntk_propulsion.report.document import report_of
from ntk_propulsion.report.drawing import draw_experiment
from ntk_propulsion.report.page import page
from ntk_propulsion.report.pictures import Picture, picture
from ntk_propulsion.runs.files import write_atomically
from ntk_propulsion.runs.records import to_json

R = TypeVar("R")


def write_experiment(experiment: Experiment, arrays: Arrays, folder: Path) -> list[Path]:
    """Draw and write an experiment's report, as `write_files` writes any.

    Args:
        experiment: As far as it is known; report.json is written only of a complete one.
        arrays: What its figures are drawn from.
        folder: Where the files go.

    Returns:
        The paths that were written, in order.
    """
    drawn = draw_experiment(experiment, arrays)
    return write_files(report_of(experiment), page, drawn, folder, complete=experiment.complete)


def write_files(
    report: R,
    page_of: Callable[[R, dict[str, Picture]], str],
    figures: Mapping[str, Figure],
    folder: Path,
    *,
    complete: bool = True,
) -> list[Path]:
    """Write ``figures/*.png``, ``report.html`` and, last of all, ``report.json`` of any report.

    Everything is drawn before anything is written, and a report.json that is already there goes
    away first: its presence means that all the rest is complete.

    Args:
        report: What report.json holds.
        page_of: Returns the HTML from the report and the pictures by name.
        figures: By name.
        folder: Where the files go.
        complete: Whether report.json is to be written.

    Returns:
        The paths that were written, in order.
    """
    drawn = {name: style.render(figure) for name, figure in figures.items()}
    pictures = {name: picture(name, figures[name], png) for name, png in drawn.items()}
    html = page_of(report, pictures).encode()
    text = to_json(report).encode()
    final = folder / "report.json"
    final.unlink(missing_ok=True)
    files = {folder / "figures" / f"{name}.png": data for name, data in drawn.items()}
    files |= {folder / "report.html": html}
    if complete:
        files[final] = text
    for path, data in files.items():
        write_atomically(path, data)
    return list(files)
