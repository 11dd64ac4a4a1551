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
from ntk_propulsion.runs.files import remove, write_atomically
from ntk_propulsion.runs.records import to_json

R = TypeVar("R")


FINAL, FIGURES = "report.json", "figures"


def write_experiment(
    experiment: Experiment, arrays: Arrays, folder: Path, *, anew: bool = False
) -> list[Path]:
    """Draw and write an experiment's report, as `write_files` writes any.

    Args:
        experiment: As far as it is known; report.json is written only of a complete one.
        arrays: What its figures are drawn from.
        folder: Where the files go.
        anew: As `write_files` has it.

    Returns:
        The paths that were written, in order.
    """
    drawn = draw_experiment(experiment, arrays)
    report, complete = report_of(experiment), experiment.complete
    return write_files(report, page, drawn, folder, complete=complete, anew=anew)


def write_files(
    report: R,
    page_of: Callable[[R, dict[str, Picture]], str],
    figures: Mapping[str, Figure],
    folder: Path,
    *,
    complete: bool = True,
    anew: bool = False,
) -> list[Path]:
    """Write ``figures/*.png``, ``report.html`` and, last of all, ``report.json`` of any report.

    Everything is drawn before anything is written, and a report.json that is already there goes
    away first: its presence means that all the rest is complete. Figures of other names, of an
    earlier report, go away before the last file comes.

    Args:
        report: What report.json holds.
        page_of: Returns the HTML from the report and the pictures by name.
        figures: By name.
        folder: Where the files go.
        complete: Whether report.json is to be written.
        anew: The folder holds this report already, complete: its report.json, which cost hours,
            stays until it is replaced.

    Returns:
        The paths that were written, in order.
    """
    drawn = {name: style.render(figure) for name, figure in figures.items()}
    pictures = {name: picture(name, figures[name], png) for name, png in drawn.items()}
    html = page_of(report, pictures).encode()
    text = to_json(report).encode()
    final = folder / FINAL
    if not anew:
        remove(final)
    files = {folder / FIGURES / f"{name}.png": data for name, data in drawn.items()}
    files |= {folder / "report.html": html}
    for path, data in files.items():
        write_atomically(path, data)
    for path in (folder / FIGURES).glob("*.png"):
        if path not in files:
            remove(path)
    if complete:
        write_atomically(final, text)
        files[final] = text
    return list(files)
