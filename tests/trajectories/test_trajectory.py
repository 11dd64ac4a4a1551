"""Tables, verdicts and comparisons of trajectories, and what they are on disk."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors import safe_open

from ntk_propulsion.errors import InputError
from ntk_propulsion.measurements.regime import kernel_regime
from ntk_propulsion.theory.distances import alignment_distance, cka, compare_kernels
from ntk_propulsion.theory.regression import target_alignment
from ntk_propulsion.theory.spectrum import participation_ratio
from ntk_propulsion.trajectories import Trajectory, compare_trajectories, files
from tests.trajectories.recorded import LABELS, TRAINING, record, recorded
from tests.trajectories.test_record import same


@pytest.fixture
def saved(tmp_path):
    recorded().save(tmp_path / "kept")
    return tmp_path / "kept"


def test_the_table_is_tidy_and_each_quantity_is_there_once():
    table = recorded("propulsion").table()
    assert {each.method for each in table} == {"propulsion"}
    names = [(q.step, q.kernel, q.quantity, q.example) for q in table]
    assert len(set(names)) == len(names)
    examples = [each for each in table if each.example is not None]
    assert len(examples) == 3 * 3 * 4  # quantities, points, texts
    assert all(isinstance(each.value, float) and np.isfinite(each.value) for each in table)


@pytest.mark.parametrize("kernel", ["own", "full"])
def test_what_the_table_says_of_kernels_is_said_of_the_recorded_ones(kernel):
    found = recorded("propulsion")
    K = [point.kernels[kernel] for point in found.points]

    def series(quantity):
        steps, values = found.series(quantity, kernel)
        assert steps == found.steps
        return values

    near = pytest.approx
    assert series("effective_rank") == near([participation_ratio(k) for k in K])
    assert series("trace") == near([float(k.matrix.trace()) for k in K])
    expected = [target_alignment(k, LABELS, centred=True) for k in K]
    assert series("target_alignment") == near(expected)
    assert series("cka") == near([cka(k, K[0]) for k in K])
    speeds = [0, alignment_distance(K[1], K[0]), alignment_distance(K[2], K[1]) / 3]
    assert series("kernel_velocity") == near(speeds)
    assert series("relative_frobenius")[0] == 0 < series("relative_frobenius")[-1]


def test_totals_and_examples_are_those_of_the_points():
    found = recorded()
    steps, drift = found.series("feature_drift")
    assert steps == found.steps == [0, 1, 4]
    assert drift.tolist() == [point.measures.feature_drift for point in found.points]
    assert found.per_example("linearization_error").shape == (3, 4)
    rows = [
        each.value
        for each in found.table()
        if each.quantity == "feature_velocity" and each.example == 2
    ]
    assert rows == found.per_example("feature_velocity")[:, 2].tolist()
    assert found.series("loss", None)[0] == [1, 2, 3, 4]


def test_the_verdict_is_of_the_last_point():
    found = recorded()
    assert found.regime() == kernel_regime(found.points[-1].measures)
    early = replace(found, points=found.points[:1])
    assert early.regime() == kernel_regime(found.points[0].measures) != found.regime()
    assert not early.complete
    assert found.complete


def test_unknown_names_and_steps_are_refused_with_what_there_is():
    found = recorded()
    with pytest.raises(InputError, match=r"step 3 of full was not recorded; there are 0, 1, 4"):
        found.at(3)
    with pytest.raises(InputError, match="did you mean feature_drift"):
        found.series("feature_drif")
    with pytest.raises(InputError, match="unknown quantity per example 'trace'"):
        found.per_example("trace")


# -- two of them


def test_comparison_is_of_the_kernels_at_equal_steps():
    ours, theirs = recorded("propulsion"), recorded("full")
    theirs = replace(theirs, points=(theirs.points[0], theirs.points[2]))
    rows = compare_trajectories(ours, theirs)
    assert {row.step for row in rows} == {0, 4}
    assert {(row.method, row.reference) for row in rows} == {("propulsion", "full")}
    p, q = ours.at(4), theirs.at(4)
    pairs = {"own": (p.own, q.own), "full": (p.full, q.full), "own-full": (p.own, q.full)}
    for name, (K, K0) in pairs.items():
        expected = compare_kernels(K, K0, norms=("frobenius",))
        found = {row.quantity: row.value for row in rows if (row.step, row.kernel) == (4, name)}
        assert found == expected
    start = [r.value for r in rows if (r.step, r.kernel) == (0, "full")]
    assert start[0] == pytest.approx(1, abs=1e-12)  # both methods start from one model


def test_a_trajectory_is_at_no_distance_from_itself():
    rows = compare_trajectories(recorded(), recorded())
    raw = [r.value for r in rows if r.quantity == "relative_frobenius"]
    assert raw == [0.0] * 9


def test_trajectories_that_do_not_meet_are_refused():
    found = recorded()
    late = replace(found, points=found.points[1:2])
    with pytest.raises(InputError, match="no recorded step in common"):
        compare_trajectories(late, replace(found, points=found.points[2:]))
    other = record(outputs="margin", steps=1, at=[0], targets=None)
    with pytest.raises(InputError, match="outputs cannot be compared"):
        compare_trajectories(other, found)


# -- on disk


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
