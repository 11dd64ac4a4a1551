"""The figures of an experiment, by the names of their files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ntk_propulsion import words
from ntk_propulsion.experiment.results import Arrays, Experiment
from ntk_propulsion.figures.before import courses, heatmaps
from ntk_propulsion.figures.before import experiment as figures
from ntk_propulsion.measurements.parts import parts_of
from ntk_propulsion.runs.records import to_json
from ntk_propulsion.trajectories import Trajectory
from ntk_propulsion.trajectories.figures import draw_changes, draw_trajectories


def draw_experiment(experiment: Experiment, arrays: Arrays) -> dict[str, Figure]:
    """Draw every figure that an experiment has the data for, so far."""
    head = experiment.results.model.head_modules
    matrices = {
        f"{point}/{tuning}/{part}": matrix
        for point, by in arrays.kernels.items()
        for tuning, kernel in by.items()
        for part, matrix in parts_of(kernel, head).items()
    }
    report = json.loads(to_json(experiment))
    figures = draw(report, matrices, dict(arrays.vectors))
    return figures | draw_courses(report, arrays.trajectories)


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
