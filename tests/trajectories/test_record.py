"""Recordings against trainings and Jacobians done by hand, killed ones against unbroken ones."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from ntk_propulsion import empirical_ntk
from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels import Options
from ntk_propulsion.kernels.tunings import LoRA
from ntk_propulsion.training.finetuning import TrainingDiverged, finetune
from ntk_propulsion.training.methods import apply_method, plain_model
from ntk_propulsion.trajectories import RecordingDiverged, Trajectory, files, record_trajectory
from ntk_propulsion.trajectories.measure import Measure
from tests.kernels.oracle import relative
from tests.training.test_methods import needs_peft
from tests.trajectories.recorded import (
    AT,
    LABELS,
    TASK,
    TRAINING,
    batch,
    jacobian,
    load,
    record,
    recorded,
    same,
)

METHODS = ["full", "propulsion", "adalora"]


class KilledError(Exception):
    pass


def kill_at(number):
    def on_step(step, loss):
        if step == number:
            raise KilledError

    return on_step


def train_by_hand(method, **changes):
    """Train as the recording does; return models at its steps and the losses."""
    loaded = load()
    apply_method(loaded.model, method, steps=TRAINING["steps"], seed=TRAINING["seed"])
    models = {0: copy.deepcopy(loaded.model)}

    def keep(step, loss):
        models[step] = copy.deepcopy(loaded.model).eval()

    log = finetune(loaded, TASK, TASK.train, **TRAINING | changes, on_step=keep)
    return models, log.losses


@pytest.mark.parametrize("method", METHODS)
def test_points_are_those_of_the_models_that_the_same_training_passes(method):
    needs_peft(method)
    models, losses = train_by_hand(method)
    found, inputs = recorded(method), batch(load())
    assert found.steps == [0, *AT]
    assert found.method == method
    assert found.losses == list(enumerate(losses, start=1))
    J = {step: jacobian(models[step], inputs) for step in found.steps}
    f = {step: models[step](**inputs).logits.detach() for step in found.steps}
    before = 0
    for point in found.points:
        step, model, change = point.step, models[point.step], J[point.step] - J[0]
        scale, size = J[0].norm(), J[0].view(4, -1).norm(dim=1)
        near = {"rel": 1e-6, "abs": 2 * point.measures.drift_floor}
        assert relative(point.own.matrix, J[step] @ J[step].T) < 1e-12
        direct = empirical_ntk(plain_model(model), inputs)["full"].matrix
        assert relative(point.full.matrix, direct) < 1e-12
        assert point.outputs == pytest.approx(f[step].numpy(), abs=1e-12)
        assert point.measures.feature_drift == pytest.approx(float(change.norm() / scale), **near)
        each = change.view(4, -1).norm(dim=1) / size
        assert point.per_example["feature_drift"] == pytest.approx(each.numpy(), **near)
        np.testing.assert_allclose(
            point.measures.difference, change @ change.T, atol=1e-13 * float(scale) ** 2
        )
        delta = [
            (now - then).detach().flatten()
            for now, then in zip(model.parameters(), models[0].parameters(), strict=True)
            if then.requires_grad
        ]
        moved = torch.cat(delta)
        linear = f[0] + (J[0] @ moved).view_as(f[0])
        assert point.linearized == pytest.approx(linear.numpy(), abs=1e-12)
        assert point.parameter_distance == pytest.approx(float(moved.norm()), rel=1e-9)
        passed = (J[step] - J[before]) / max(1, step - before)
        speed = float(passed.norm() / scale)
        assert point.feature_velocity == pytest.approx(speed, **near)
        speeds = passed.view(4, -1).norm(dim=1) / size
        assert point.per_example["feature_velocity"] == pytest.approx(speeds.numpy(), **near)
        before = step
    assert found.points[-1].parameter_distance > 0


def test_a_method_linear_in_its_parameters_neither_drifts_nor_errs():
    found = recorded("head")
    for point in found.points:
        assert point.measures.feature_drift <= point.measures.drift_floor < 1e-6
        assert point.measures.linearization_error <= max(1e-12, point.measures.linearization_floor)
        assert point.feature_velocity <= point.measures.drift_floor
        assert relative(point.own.matrix, found.points[0].own.matrix) < 1e-14
    assert found.points[-1].parameter_distance > 1e-3
    assert found.regime().kernel_regime == "holds"
    full = recorded("full").points[-1].measures
    assert full.feature_drift > 1e3 * full.drift_floor  # what is not linear is seen


def test_recording_changes_nothing_of_the_training_not_even_its_dropout():
    _, expected = train_by_hand("full")
    _, without = train_by_hand("full", dropout=False)
    assert expected != without  # there is dropout
    assert [loss for _, loss in record(at=[2]).losses] == expected


def test_the_trained_model_and_its_log_are_handed_over():
    handed = []
    found = record("propulsion", on_trained=lambda tuned, log: handed.append((tuned, log)))
    ((tuned, log),) = handed
    assert list(enumerate(log.losses, start=1)) == found.losses
    logits = tuned.model(**batch(tuned)).logits.detach().numpy()
    assert logits == pytest.approx(found.points[-1].outputs, abs=1e-12)


def test_the_model_given_and_torchs_random_numbers_come_back_as_they_were():
    loaded = load()
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    state = torch.get_rng_state()
    record("propulsion", loaded, steps=1, at=[1])
    assert torch.equal(torch.get_rng_state(), state)
    after = loaded.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(p.requires_grad and p.grad is None for p in loaded.model.parameters())
    assert not loaded.model.training


def test_by_default_steps_are_spread_and_the_last_is_among_them():
    assert record("head", steps=3, at=None).steps == [0, 1, 2, 3]


def test_margins_are_recorded_as_well_as_logits():
    found = record("head", outputs="margin", steps=1, at=[1])
    assert found.points[-1].own.matrix.shape == (4, 4)
    logits = record("head", steps=1, at=[1]).points[-1].outputs
    assert found.points[-1].outputs[:, 0] == pytest.approx(logits[:, 1] - logits[:, 0])


# -- kills


@pytest.mark.parametrize(("method", "step"), [("full", 1), ("propulsion", 3), ("full", 4)])
def test_a_killed_recording_ends_in_the_numbers_of_an_unbroken_one(tmp_path, method, step):
    how = {"output_dir": tmp_path / "here", "save_steps": 2}
    with pytest.raises(KilledError):
        record(method, **how, on_step=kill_at(step))
    partial = Trajectory.load(tmp_path / "here")
    assert partial.steps == [s for s in (0, *AT) if s <= step]
    told = []
    resumed = record(method, **how, on_step=lambda number, loss: told.append(number))
    assert told[0] == (step - 1) // 2 * 2 + 1  # from the last checkpoint, not from the start
    assert same(resumed, recorded(method))
    assert same(Trajectory.load(tmp_path / "here"), resumed)


def test_a_point_half_written_is_measured_again(tmp_path, monkeypatch):
    write = files.write_atomically

    def cut(path, content):
        if path.name == "0000004.json":
            raise KilledError
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_atomically", cut)
        with pytest.raises(KilledError):
            record(output_dir=tmp_path)
    assert (tmp_path / "points" / "0000004.safetensors").exists()
    assert Trajectory.load(tmp_path).steps == [0, 1]
    assert same(record(output_dir=tmp_path), recorded())


def test_kept_points_are_not_measured_again(tmp_path, monkeypatch):
    first = record(output_dir=tmp_path)
    monkeypatch.setattr(Measure, "point", lambda *given: pytest.fail("measured again"))
    again = record(output_dir=tmp_path)
    assert same(first, again)
    assert again.losses == first.losses
    assert len(list(tmp_path.glob("parameters-*.safetensors"))) == 1


def test_a_folder_of_another_recording_is_refused(tmp_path):
    with pytest.raises(KilledError):
        record(output_dir=tmp_path, at=[0], on_step=kill_at(1))
    for changes, named in (
        ({"learning_rate": 2e-2}, "learning_rate"),
        ({"at": [2], "targets": None}, "at, targets"),
        ({"method": "bitfit"}, "method"),
        ({"options": Options(dtype=torch.float32)}, "dtype"),
        ({"schedule": "constant"}, "schedule"),
    ):
        with pytest.raises(InputError, match=f"another setting of {named}: name another folder"):
            record(**{"output_dir": tmp_path, "at": [0]} | changes)


def test_other_weights_are_refused_and_so_is_a_folder_that_lost_its_parameters(tmp_path):
    with pytest.raises(KilledError):
        record(output_dir=tmp_path, on_step=kill_at(1))
    other = load()
    with torch.no_grad():
        other.model.classifier.bias.add_(1)
    with pytest.raises(InputError, match="another setting of weights"):
        record("full", other, output_dir=tmp_path)
    (tmp_path / "parameters-0000001.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match=r"parameters-0000001\.safetensors is missing or damaged"):
        record(output_dir=tmp_path)


# -- divergence


def test_diverging_training_keeps_what_was_recorded(tmp_path):
    loaded = load(dtype=torch.float32)
    how = {"learning_rate": 1e25, "at": [1, 2], "output_dir": tmp_path, "warmup": 1}
    with pytest.raises(RecordingDiverged, match=r"step 2 .*rate 1e\+25.* up to step 1") as caught:
        record("full", loaded, **how)
    kept = caught.value.trajectory
    assert isinstance(caught.value, TrainingDiverged)
    assert kept.steps == [0, 1]
    assert not kept.complete
    assert same(Trajectory.load(tmp_path), kept)
    assert Trajectory.load(tmp_path).losses == kept.losses
    assert all(p.isfinite().all() for p in loaded.model.parameters())
    with pytest.raises(RecordingDiverged):  # resuming tells the same
        record("full", loaded, **how)


# -- bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "0 steps: train for at least 1"),
        ({"at": [6]}, "record at whole steps from 0 to 4, not at 6"),
        ({"at": [-1]}, "not at -1"),
        ({"at": [1.5]}, "not at 1.5"),
        ({"learning_rate": 0.0}, "positive and finite"),
        ({"targets": [0, 1]}, "do not fit 4 examples"),
        ({"targets": [0, 1, 2, 3]}, "classes run from 0 to 3: 2 outputs"),
        ({"targets": np.ones((4, 3))}, "targets have 3 columns, the model 2"),
        ({"outputs": "logit"}, "unknown outputs 'logit'"),
        ({"method": LoRA(positions="nowhere")}, "unknown position"),
    ],
)
def test_bad_input_is_one_clear_line(changes, message):
    needs_peft("lora")
    with pytest.raises(InputError, match=message) as caught:
        record(**changes)
    assert "\n" not in str(caught.value)


def test_examples_and_batches_that_are_empty_are_refused():
    loaded = load()
    with pytest.raises(InputError, match="no examples"):
        record_trajectory(loaded, TASK, [], batch(loaded), "head", **TRAINING)
    with pytest.raises(InputError, match="no tensor"):
        record_trajectory(loaded, TASK, TASK.train, {}, "head", **TRAINING)


def test_a_model_that_carries_a_method_already_is_refused():
    loaded = load()
    apply_method(loaded.model, "propulsion")
    with pytest.raises(InputError, match="wrapped already"):
        record("propulsion", loaded)


def test_targets_may_be_tensors(tmp_path):
    one = record("head", steps=1, targets=torch.tensor(LABELS), at=[0], output_dir=tmp_path)
    two = record("head", steps=1, targets=LABELS, at=[0])
    assert one.table() == two.table()
    loaded = Trajectory.load(tmp_path)
    assert loaded.table() == two.table()
    assert replace(loaded, targets=None).find("target_alignment", "own") is None
