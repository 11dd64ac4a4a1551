"""A trajectory on disk: a folder that a recording fills point by point and a reader takes up.

``trajectory.json`` says what the training is. Each point has its kernels in
``points/<step>.safetensors`` and, written last, its numbers in ``points/<step>.json``: a point
without its JSON file does not exist. JSON here knows Infinity, as Python writes it: what was zero
before training and moved has an infinite relative drift.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as tensor_bytes
from torch import Tensor

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels import Kernel, load_kernels, save_kernels
from ntk_propulsion.measurements.regime import RegimeMeasures
from ntk_propulsion.runs.files import new_folder, write_atomically
from ntk_propulsion.theory.inputs import as_array
from ntk_propulsion.trajectories.points import Point, Recorded

FORMAT = "ntk_propulsion.trajectory/1"
ABOUT, POINTS = "trajectory.json", "points"

_MEASURED = (
    *("tuning", "linearization_error", "linearization_floor", "feature_drift", "drift_floor"),
    *("drift_per_module", "distances"),
)
_MEASURED_ARRAYS = ("linearization_per_example", "drift_per_example")
_OWN = ("step", "parameter_distance", "feature_velocity")
_OWN_ARRAYS = ("outputs", "linearized", "velocity_per_example")


def save(trajectory: Recorded, folder: Path) -> None:
    """Write a trajectory into a new folder, whole or not at all.

    Raises:
        InputError: There is something in its place, or it cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already: name a new folder")
    try:
        with new_folder(folder) as whole:
            for point in trajectory.points:
                write_point(whole, point)
            write_about(whole, trajectory)
    except OSError as error:
        raise InputError(f"cannot write to {folder} ({error.strerror}): name another") from error


def write_about(folder: Path, trajectory: Recorded) -> None:
    """Write what a trajectory is, without its points."""
    targets = trajectory.targets
    about = {
        "format": FORMAT,
        "method": trajectory.method,
        "settings": trajectory.settings,
        "targets": None if targets is None else np.asarray(targets).tolist(),
        "losses": trajectory.losses,
    }
    write_atomically(folder / ABOUT, json.dumps(about, indent=1) + "\n")


def write_point(folder: Path, point: Point) -> None:
    """Add a point to a trajectory's folder, or replace it."""
    measures = point.measures
    change = replace(measures.after, matrix=torch.from_numpy(measures.difference), tuning="change")
    path = folder / POINTS / f"{point.step:07d}.json"
    kernels = {n: replace(k, matrix=k.matrix.clone()) for n, k in point.kernels.items()}
    save_kernels({**kernels, "change": change}, path.with_suffix(".safetensors"))
    numbers = {name: getattr(measures, name) for name in _MEASURED}
    numbers |= {name: getattr(measures, name).tolist() for name in _MEASURED_ARRAYS}
    numbers |= {name: getattr(point, name) for name in _OWN}
    numbers |= {name: getattr(point, name).tolist() for name in _OWN_ARRAYS}
    write_atomically(path, json.dumps({"format": FORMAT, **numbers}))


def load(folder: Path) -> Recorded:
    """Read a trajectory's folder, also that of a recording that is not complete.

    Raises:
        InputError: It is missing, damaged, or of another format.
    """
    about = _read(folder / ABOUT)
    points = load_points(folder)
    if not points:
        raise InputError(f"{folder} holds no point of a trajectory yet")
    try:
        targets = about["targets"]
        return Recorded(
            about["method"],
            about["settings"],
            None if targets is None else np.asarray(targets),
            tuple(points.values()),
            [(int(step), float(loss)) for step, loss in about["losses"]],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder / ABOUT} is damaged ({error!r})") from error


def load_points(folder: Path) -> dict[int, Point]:
    """Return the complete points of a trajectory's folder, by their steps in order.

    Raises:
        InputError: A file is damaged or of another format, or theta_0 is missing.
    """
    points: dict[int, Point] = {}
    before: Kernel | None = None
    for path in sorted((folder / POINTS).glob("*.json")):
        numbers = _read(path)
        kernels = load_kernels(path.with_suffix(".safetensors"))
        try:
            before = before or kernels["own"]
            point = _point(numbers, kernels, before)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is damaged ({error!r})") from error
        points[point.step] = point
    if points and 0 not in points:
        raise InputError(f"{folder / POINTS} has no point at step 0: it is not whole")
    return points


def read_about(folder: Path) -> dict[str, Any] | None:
    """Return what a folder's trajectory is, None where there is none.

    Raises:
        InputError: It is damaged or of another format.
    """
    return _read(folder / ABOUT) if (folder / ABOUT).exists() else None


def _point(numbers: Mapping[str, Any], kernels: Mapping[str, Kernel], before: Kernel) -> Point:
    own: dict[str, Any] = {name: numbers[name] for name in (*_OWN, *_MEASURED)}
    for name in (*_OWN_ARRAYS, *_MEASURED_ARRAYS):
        own[name] = np.array(numbers[name], dtype=np.float64)
    measures = RegimeMeasures(
        **{name: own.pop(name) for name in (*_MEASURED, *_MEASURED_ARRAYS)},
        difference=as_array(kernels["change"], "change"),
        before=before,
        after=kernels["own"],
        outputs=own["outputs"],
        linearized=own["linearized"],
    )
    return Point(**own, measures=measures, full=kernels["full"])


def write_parameters(folder: Path, step: int, parameters: Mapping[str, Tensor]) -> None:
    """Keep what trains as it stands at a step: the next point is compared with it."""
    tensors = {name: p.detach().cpu().contiguous() for name, p in parameters.items()}
    write_atomically(_parameters(folder, step), tensor_bytes(tensors))


def read_parameters(folder: Path, step: int) -> dict[str, Tensor]:
    """Return what `write_parameters` kept.

    Raises:
        InputError: It is missing or damaged.
    """
    path = _parameters(folder, step)
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is missing or damaged: record into another folder") from error


def forget_parameters(folder: Path, *, but: int | None = None) -> None:
    """Remove what `write_parameters` kept, but that of one step."""
    for path in folder.glob("parameters-*.safetensors"):
        if but is None or path != _parameters(folder, but):
            path.unlink()


def _parameters(folder: Path, step: int) -> Path:
    return folder / f"parameters-{step:07d}.safetensors"


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is missing or damaged") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise InputError(f"{path} is not of a trajectory of this format ({FORMAT})")
    return found
