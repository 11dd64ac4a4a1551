"""What an experiment's figures are drawn from, on disk beside its report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from ntk_propulsion.errors import InputError
from ntk_propulsion.experiment.results import Arrays, Results
from ntk_propulsion.kernels import Kernel, load_kernels, save_kernels
from ntk_propulsion.trajectories import Trajectory

KERNELS, ADAPTER, TRAJECTORIES = "kernels.safetensors", "adapter.safetensors", "trajectories"


def save_kernels_by_point(arrays: Arrays, folder: Path) -> None:
    """Write ``kernels.safetensors``: every kernel by point/tuning."""
    kernels = {
        f"{point}/{t}": kernel for point, by in arrays.kernels.items() for t, kernel in by.items()
    }
    save_kernels(kernels, folder / KERNELS)


def load_arrays(folder: Path, results: Results) -> Arrays:
    """Read the arrays of a finished experiment.

    Args:
        folder: Holds ``kernels.safetensors`` and, of what was trained and recorded,
            ``adapter.safetensors`` and ``trajectories/``.
        results: What report.json says of them.

    Raises:
        InputError: A file is missing or damaged, or of another run.
    """
    kernels = load_kernels(folder / KERNELS)
    by_point: dict[str, dict[str, Kernel]] = {}
    for row in results.kernels:  # their order is the run's, the file's is the alphabet's
        name = f"{row.point}/{row.tuning}"
        if name not in kernels:
            raise InputError(f"{folder / KERNELS} holds no kernel {name}: it is of another run")
        by_point.setdefault(row.point, {})[row.tuning] = kernels[name]
    modules = [row.module for row in results.scaling_vectors[:-1]]  # the last row is of all
    return Arrays(
        by_point,
        _every_vector(folder / ADAPTER, modules) if modules else {},
        {
            each.method: Trajectory.load(folder / TRAJECTORIES / each.method)
            for each in results.trajectories
        },
    )


def _every_vector(path: Path, modules: Sequence[str]) -> dict[str, np.ndarray]:
    """Return what `load_vectors` does, once there is one of every module."""
    vectors = load_vectors(path, modules)
    missing = [name for name in modules if name not in vectors]
    if missing:
        raise InputError(f"{path} holds no vector of {missing[0]}: it is of another run")
    return vectors


def load_vectors(path: Path, modules: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the scaling vectors of an adapter's file, (d_out,) in float64, by module.

    Args:
        path: The file.
        modules: In the order wanted; those that the file has no vector of are left out.

    Raises:
        InputError: It is missing or damaged.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is missing or damaged") from error
    return {name: tensors[f"{name}.z"].astype(float) for name in modules if f"{name}.z" in tensors}
