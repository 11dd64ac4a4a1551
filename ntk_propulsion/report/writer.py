"""Writes the report of an experiment into a folder; report.json comes last."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from matplotlib.figure import Figure

from ntk_propulsion import words
from ntk_propulsion.experiment.results import Arrays, Experiment
from ntk_propulsion.figures import style
from ntk_propulsion.figures.before import courses, heatmaps
from ntk_propulsion.figures.before import experiment as figures
from ntk_propulsion.report.answer import answer
from ntk_propulsion.report.claims import claims
from ntk_propulsion.report.drawing import draw_experiment
from ntk_propulsion.report.page import page
from ntk_propulsion.report.pictures import Picture, picture
from ntk_propulsion.runs.files import write_atomically
from ntk_propulsion.runs.records import to_json
from ntk_propulsion.trajectories import Trajectory
from ntk_propulsion.trajectories.figures import draw_changes, draw_trajectories

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
    results = json.loads(to_json(experiment.results))
    report = {
        "schema": experiment.schema,
        "config": json.loads(to_json(experiment.config)),
        "environment": json.loads(to_json(experiment.environment)),
        "results": {"answer": answer(results), **results},
        "claims": claims(results),
    }
    figures = draw_experiment(experiment, arrays)
    return write_files(report, page, figures, folder, complete=experiment.complete)


def write_report(
    report: dict[str, Any],
    kernels: dict[str, np.ndarray],
    scaling: dict[str, np.ndarray] | None,
    folder: Path,
    trajectories: Mapping[str, Trajectory] | None = None,
    *,
    complete: bool = True,
) -> list[Path]:
    """Draw and write a report that is a dictionary already."""
    figures = draw(report, kernels, scaling) | draw_courses(report, trajectories or {})
    return write_files(report, page, figures, folder, complete=complete)


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


def draw(
    report: dict[str, Any],
    kernels: dict[str, np.ndarray],
    scaling: dict[str, np.ndarray] | None,
) -> dict[str, Figure]:
    """Draw every figure that the results have the data for.

    Returns:
        ``{name: figure}``; a name begins with the section of the page that shows it.
    """
    results = report["results"]
    drawn = {
        f"kernels_{point}_{part}": heatmaps.kernel_heatmaps(results, kernels, point, part=part)
        for point in words.POINTS
        for part in ("all", "without_head")
        if f"{point}/full/{part}" in kernels and f"{point}/propulsion/{part}" in kernels
    }
    if results["distances"]:
        drawn["distances"] = figures.distance_summary(results)
    for point in words.POINTS:
        if words.rows(results.get("per_module"), point=point):
            drawn[f"modules_{point}"] = figures.module_distances(results, point)
    if kernels:
        drawn["spectra"] = figures.spectra(results, kernels)
    if scaling and results.get("scaling_vectors"):
        degree = int(report["config"]["degree"])
        drawn["scaling"] = figures.scaling_histogram(results, scaling, degree)
    if any(run.get("losses") for run in results.get("training") or ()):
        drawn["training"] = figures.training_curves(results)
    return drawn


def draw_courses(
    report: dict[str, Any], trajectories: Mapping[str, Trajectory]
) -> dict[str, Figure]:
    """Draw what the sweeps chose and how the kernels went along training."""
    results = report["results"]
    drawn = {}
    if any(len(sweep["trials"]) > 1 for sweep in results.get("sweeps") or ()):
        drawn["sweep"] = courses.sweep_figure(results)
    moved = [t for t in trajectories.values() if len(t.points) > 1]
    if moved:
        drawn["trajectories"] = draw_trajectories(moved)
    if any(row["step"] for row in results.get("between") or ()):
        drawn["trajectories_between"] = courses.between_figure(results)
    for trajectory in moved:
        if trajectory.method in ("full", "propulsion"):
            drawn[f"trajectories_change_{trajectory.method}"] = draw_changes(trajectory)
    return drawn
