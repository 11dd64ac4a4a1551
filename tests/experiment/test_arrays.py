"""What figures are drawn from comes back from disk, or is refused by the file that lacks it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from ntk_propulsion.errors import InputError
from ntk_propulsion.experiment.arrays import (
    ADAPTER,
    KERNELS,
    TRAJECTORIES,
    load_arrays,
    load_vectors,
    save_kernels_by_point,
)
from ntk_propulsion.experiment.results import Arrays, Recording, Results
from ntk_propulsion.kernels import load_kernels
from tests.synthetic import Made
from tests.trajectories.recorded import recorded

RECORDED = (Recording("full", 1e-2, 4, (0, 1, 4)),)


@pytest.fixture
def folder(classification: Made, tmp_path: Path) -> Path:
    """A folder with the arrays of a made-up experiment, and a recording."""
    save_kernels_by_point(classification.arrays, tmp_path)
    vectors = classification.arrays.vectors.items()
    save_file({f"{module}.z": z for module, z in vectors}, tmp_path / ADAPTER)
    recorded().save(tmp_path / TRAJECTORIES / "full")
    return tmp_path


def results_of(made: Made) -> Results:
    return replace(made.results, trajectories=RECORDED)


def test_what_is_kept_comes_back_in_the_order_of_the_results(
    classification: Made, folder: Path
) -> None:
    found, made = load_arrays(folder, results_of(classification)), classification.arrays
    assert [(point, *by) for point, by in found.kernels.items()] == [
        (point, *by) for point, by in made.kernels.items()
    ]
    for point, by in made.kernels.items():
        for tuning, kernel in by.items():
            again = found.kernels[point][tuning]
            assert torch.equal(again.matrix, kernel.matrix)
            assert again.per_module.keys() == kernel.per_module.keys()
    assert list(found.vectors) == list(made.vectors)
    assert all(np.array_equal(found.vectors[name], z) for name, z in made.vectors.items())
    assert [(name, t.steps) for name, t in found.trajectories.items()] == [("full", [0, 1, 4])]


def test_kernels_are_in_one_file_by_point_and_tuning(classification: Made, folder: Path) -> None:
    assert {*load_kernels(folder / KERNELS)} == {
        f"{point}/{tuning}" for point, by in classification.arrays.kernels.items() for tuning in by
    }


def test_where_nothing_was_trained_or_recorded_only_kernels_are_read(
    classification: Made, tmp_path: Path
) -> None:
    save_kernels_by_point(classification.arrays, tmp_path)
    bare = replace(classification.results, scaling_vectors=(), trajectories=())
    found = load_arrays(tmp_path, bare)
    assert found.kernels.keys() == classification.arrays.kernels.keys()
    assert (found.vectors, found.trajectories) == ({}, {})


def without_a_kernel(folder: Path, arrays: Arrays) -> None:
    save_kernels_by_point(replace(arrays, kernels={"theta0": arrays.kernels["theta0"]}), folder)


def without_a_vector(folder: Path, arrays: Arrays) -> None:
    save_file({f"{name}.z": z for name, z in list(arrays.vectors.items())[1:]}, folder / ADAPTER)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_a_kernel, "no kernel full_tuned/full: it is of another run"),
        (without_a_vector, "no vector of embeddings.word_embeddings: it is of another run"),
        (lambda folder, _: (folder / KERNELS).unlink(), "cannot read kernels from"),
        (lambda folder, _: (folder / ADAPTER).unlink(), r"adapter\.safetensors is missing"),
        (lambda folder, _: (folder / ADAPTER).write_bytes(b"no"), r"safetensors is missing or dam"),
        (
            lambda folder, _: (folder / TRAJECTORIES / "full" / "trajectory.json").unlink(),
            r"trajectory\.json is missing or damaged",
        ),
    ],
)
def test_a_file_that_is_missing_damaged_or_of_another_run_is_named(
    classification: Made, folder: Path, spoil: Callable[[Path, Arrays], object], message: str
) -> None:
    spoil(folder, classification.arrays)
    with pytest.raises(InputError, match=message):
        load_arrays(folder, results_of(classification))


def test_vectors_come_in_the_order_asked_for_in_float64_without_those_that_there_are_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / ADAPTER
    save_file({"b.z": np.ones(2, "float32"), "a.z": np.zeros(3, "float32")}, path)
    found = load_vectors(path, ["b", "none", "a"])
    assert list(found) == ["b", "a"]
    assert [z.dtype for z in found.values()] == [np.float64, np.float64]
