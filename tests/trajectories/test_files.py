"""A trajectory on disk comes back to the bit, or is refused in one line."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open

from ntk_propulsion.errors import InputError
from ntk_propulsion.trajectories import Trajectory, files
from tests.trajectories.recorded import LABELS, TRAINING, recorded, same


@pytest.fixture
def saved(tmp_path):
    recorded().save(tmp_path / "kept")
    return tmp_path / "kept"


@pytest.mark.parametrize("method", ["full", "adalora"])
def test_what_is_saved_comes_back_to_the_bit(tmp_path, method):
    if method == "adalora":
        pytest.importorskip("peft", reason="peft is not installed")
    found = recorded(method)
    found.save(tmp_path / "deep" / "kept")
    again = Trajectory.load(tmp_path / "deep" / "kept")
    assert same(found, again)
    assert again.losses == found.losses
    assert again.regime() == found.regime()
    assert again.settings["learning_rate"] == TRAINING["learning_rate"]
    assert again.targets.tolist() == LABELS
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["kept"]  # nothing beside it


def test_files_say_what_they_are(saved):
    about = json.loads((saved / "trajectory.json").read_text())
    assert about["format"] == files.FORMAT
    assert about["method"] == about["settings"]["method"] == "full"
    assert about["settings"]["at"] == [0, 1, 4]
    with safe_open(str(saved / "points" / "0000004.safetensors"), "pt") as file:
        assert set(file.keys()) == {"own/matrix", "full/matrix", "change/matrix"}


def test_a_folder_in_use_is_not_written_into(saved, tmp_path):
    with pytest.raises(InputError, match="is there already: name a new folder"):
        recorded().save(saved)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is there already"):
        recorded().save(tmp_path / "file")
    with pytest.raises(InputError, match="cannot write to"):
        recorded().save(tmp_path / "file" / "inside")


def test_a_save_cut_short_leaves_nothing(tmp_path, monkeypatch):
    def fail(folder, trajectory):
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "write_about", fail)
    with pytest.raises(KeyboardInterrupt):
        recorded().save(tmp_path / "kept")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("trajectory.json", b'{"format": "ntk_prop', "trajectory.json is missing or damaged"),
        ("trajectory.json", b'{"format": "other/1"}', "not of a trajectory of this format"),
        ("trajectory.json", b"[]", "not of a trajectory of this format"),
        ("trajectory.json", None, "trajectory.json is missing or damaged"),
        ("points/0000001.json", b"\xff\xfe", r"0000001\.json is missing or damaged"),
        ("points/0000001.json", b'{"format": "ntk_propulsion.trajectory/1"}', "is damaged"),
        ("points/0000001.safetensors", b"short", "cannot read kernels from"),
        ("points/0000001.safetensors", None, "cannot read kernels from"),
        ("points/0000000.json", None, "no point at step 0"),
    ],
)
def test_damaged_files_are_one_clear_line(saved, name, content, message):
    if content is None:
        (saved / name).unlink()
    else:
        (saved / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        Trajectory.load(saved)
    assert "\n" not in str(caught.value)


def test_a_trajectory_without_a_format_field_it_knows_is_named(saved):
    about = json.loads((saved / "trajectory.json").read_text())
    del about["losses"]
    (saved / "trajectory.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match=r"trajectory\.json is damaged"):
        Trajectory.load(saved)


def test_a_folder_that_holds_nothing_yet_is_named(tmp_path):
    with pytest.raises(InputError, match="missing or damaged"):
        Trajectory.load(tmp_path)
    files.write_about(tmp_path, replace(recorded(), points=()))
    with pytest.raises(InputError, match="no point of a trajectory yet"):
        Trajectory.load(tmp_path)


# -- point by point


def test_points_are_read_in_the_order_of_their_steps_however_they_were_written(tmp_path):
    far = replace(recorded().points[2], step=12_345_678)  # longer than the names' zeros
    for point in (far, recorded().points[1], recorded().points[0]):
        files.write_point(tmp_path, point)
    assert list(files.load_points(tmp_path)) == [0, 1, 12_345_678]


def test_a_point_written_again_replaces_the_one_before(tmp_path):
    start, *_, last = recorded().points
    files.write_point(tmp_path, start)
    files.write_point(tmp_path, replace(last, step=0))
    (point,) = files.load_points(tmp_path).values()
    assert np.array_equal(point.outputs, last.outputs)
    assert torch.equal(point.own.matrix, last.own.matrix)


def test_all_points_share_the_kernel_at_the_start(saved):
    points = files.load_points(saved)
    assert len({id(point.measures.before) for point in points.values()}) == 1
    assert torch.equal(points[0].measures.before.matrix, points[0].own.matrix)


def test_infinite_drifts_come_back_infinite(tmp_path):
    start = recorded().points[0]
    measures = replace(start.measures, feature_drift=float("inf"))
    files.write_point(tmp_path, replace(start, measures=measures))
    assert files.load_points(tmp_path)[0].measures.feature_drift == float("inf")


def test_an_empty_folder_has_no_points_and_is_of_nothing(tmp_path):
    assert files.load_points(tmp_path) == {}
    assert files.read_about(tmp_path) is None


# -- what trains


def test_parameters_come_back_to_the_bit_and_all_but_the_wanted_ones_are_forgotten(tmp_path):
    model = torch.nn.Linear(3, 2)
    for step in (0, 1, 4):
        files.write_parameters(tmp_path, step, dict(model.named_parameters()))
    files.forget_parameters(tmp_path, but=4)
    kept = files.read_parameters(tmp_path, 4)
    assert kept.keys() == {"weight", "bias"}
    assert torch.equal(kept["weight"], model.weight)
    with pytest.raises(InputError, match=r"parameters-0000001\.safetensors is missing or damaged"):
        files.read_parameters(tmp_path, 1)
    files.forget_parameters(tmp_path)
    assert not list(tmp_path.iterdir())
