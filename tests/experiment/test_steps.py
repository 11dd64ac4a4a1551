"""Each step of an experiment by itself: what it returns, and the files that it leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ntk_propulsion import empirical_ntk, load_kernels
from ntk_propulsion.errors import InputError
from ntk_propulsion.experiment import steps as steps_module
from ntk_propulsion.experiment.materials import prepare
from ntk_propulsion.experiment.results import SweepResult
from ntk_propulsion.experiment.steps import HEAD, Steps
from ntk_propulsion.models.probe import fit_probe
from ntk_propulsion.models.scoring import evaluate
from ntk_propulsion.propulsion import load_adapter
from ntk_propulsion.runs.progress import Progress
from ntk_propulsion.training.finetuning import TrainingDiverged, finetune
from ntk_propulsion.training.sweep import candidate_rates
from ntk_propulsion.trajectories import Trajectory
from tests import tiny_runs
from tests.kernels.oracle import relative

RECORDED = {"trajectories": ("full", "lora"), "trajectory_points": 1, "trajectory_examples": 4}


class Told(Progress):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.done: list[int] = []

    def begin(self, what: str, total: int | None = None) -> None:
        self.begun.append(what)

    def advance(self, done: int, total: int | None = None) -> None:
        self.done.append(done)


def steps_in(folder: Path, **changes: object) -> Steps:
    """The steps of a tiny experiment of two training steps, on a model just loaded."""
    chosen = tiny_runs.settings(**{"steps": 2, **changes})
    return Steps(chosen, tiny_runs.begun(folder, chosen), Told(), prepare(chosen))


def parameters(steps: Steps) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in steps.loaded.model.named_parameters()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


# -- the head


def test_a_head_is_fitted_once_and_then_taken_up_to_the_bit(tmp_path, monkeypatch):
    first = steps_in(tmp_path)
    probe = first.head()
    monkeypatch.setattr(steps_module, "fit_probe", lambda *_, **__: pytest.fail("fitted again"))
    again = steps_in(tmp_path)
    before = parameters(again)
    assert again.head() == probe
    assert same(parameters(first), parameters(again))
    assert not same(parameters(again), before)


def test_a_fitted_head_is_that_of_the_probe_on_the_chosen_examples(tmp_path):
    steps, other = steps_in(tmp_path), prepare(tiny_runs.settings(steps=2))
    expected = fit_probe(other.loaded, other.task, other.fitted, seed=0)
    assert steps.head() == expected
    assert torch.equal(steps.loaded.model.classifier.weight, other.loaded.model.classifier.weight)


def test_a_head_that_is_not_to_be_fitted_is_kept_as_it_is(tmp_path):
    steps = steps_in(tmp_path, head="random")
    before = parameters(steps)
    assert steps.head() is None
    assert same(parameters(steps), before)
    kept = load_file(steps.run.path(HEAD))
    assert torch.equal(kept["classifier.weight"], before["classifier.weight"])


def test_a_model_that_changed_since_is_not_resumed(tmp_path):
    steps_in(tmp_path, head="random").head()
    changed = steps_in(tmp_path, head="random")
    with torch.no_grad():
        next(changed.loaded.model.parameters()).mul_(1.01)
    with pytest.raises(InputError, match=r"cannot resume .* have changed since it began"):
        changed.head()


@pytest.mark.parametrize("content", [None, b"no"])
def test_a_head_that_is_missing_or_damaged_is_named(tmp_path, content):
    steps = steps_in(tmp_path, head="random")
    steps.head()
    steps.run.path(HEAD).unlink()
    if content is not None:
        steps.run.path(HEAD).write_bytes(content)
    with pytest.raises(InputError, match=r"head\.safetensors is missing or damaged: begin anew"):
        steps.head()


# -- before training


def test_kernels_before_training_are_kept_with_their_certificate(tmp_path):
    steps = steps_in(tmp_path)
    facts = steps.start()
    kept = load_kernels(steps.run.path("theta0.safetensors"))
    assert list(kept) == [tuning.name for tuning in steps.materials.tunings]
    batch = steps.materials.encoding.batch
    direct = empirical_ntk(steps.loaded.model, batch, dtype=torch.float64)["full"]
    assert relative(kept["full"].matrix, direct.matrix) < 1e-12
    assert 0 <= facts.certificate < 1e-6
    assert facts.exact_fallback == {}


def test_the_score_is_that_of_evaluate(tmp_path):
    steps = steps_in(tmp_path)
    report = evaluate(steps.loaded, steps.materials.task, steps.materials.test)
    assert steps.score().metric == report.metrics["accuracy"]


def test_a_score_that_is_not_defined_is_none(tmp_path):
    texts = tiny_runs.write_texts(tmp_path / "targets.csv", classes=0)
    steps = steps_in(tmp_path / "out", task=str(texts))
    torch.nn.init.zeros_(steps.loaded.model.classifier.weight)  # constants correlate with nothing
    assert steps.score().metric is None


# -- learning rates


@pytest.mark.parametrize("sweep", [1, 2])
def test_a_rate_that_is_given_is_taken(tmp_path, sweep):
    steps = steps_in(tmp_path, sweep=sweep, learning_rate=3e-4)
    assert steps.sweep("full") == SweepResult("full", 3e-4, True)
    assert steps.progress.begun == []


def test_without_a_sweep_the_middle_of_the_rates_is_taken(tmp_path):
    steps = steps_in(tmp_path, sweep=1, **RECORDED)
    (middle,) = candidate_rates(steps.materials.recorded["lora"], 1)
    assert steps.sweep("lora") == SweepResult("lora", middle, False)


@pytest.mark.parametrize(("sweep_steps", "taken"), [(1, 1), (5, 2)])
def test_a_sweep_tries_each_rate_for_no_more_steps_than_the_training(tmp_path, sweep_steps, taken):
    steps = steps_in(tmp_path, learning_rate=None, sweep=2, sweep_steps=sweep_steps)
    before = parameters(steps)
    found = steps.sweep("full")
    assert [trial.learning_rate for trial in found.trials] == list(candidate_rates("full", 2))
    assert found.chosen == min(found.trials, key=lambda trial: trial.loss).learning_rate
    assert (found.given, found.steps) == (False, taken)
    assert same(parameters(steps), before)


# -- training


def test_a_tuned_copy_is_that_of_finetune_and_leaves_the_model_alone(tmp_path):
    steps, other = steps_in(tmp_path), prepare(tiny_runs.settings(steps=2))
    before = parameters(steps)
    found = steps.tune("full", 1e-3, 0.25)
    assert same(parameters(steps), before)
    log = finetune(other.loaded, other.task, other.train, steps=2, learning_rate=1e-3, batch_size=4)
    assert found.recording is None
    assert found.training.losses == tuple(enumerate(log.losses, start=1))
    assert (found.training.metric_before, found.training.degree) == (0.25, None)
    after = evaluate(other.loaded, other.task, other.test).metrics["accuracy"]
    assert found.training.metric_after == after
    kept = load_kernels(steps.run.path("full_tuned.safetensors"))
    assert list(kept) == ["full", "propulsion"]
    direct = empirical_ntk(other.loaded.model, other.encoding.batch, dtype=torch.float64)
    assert relative(kept["full"].matrix, direct["full"].matrix) < 1e-12


def test_what_propulsion_trained_is_kept_as_an_adapter_of_the_models(tmp_path):
    steps = steps_in(tmp_path, degree=3, head="random")
    found = steps.tune("propulsion", 1e-2, None)
    assert found.training.degree == 3
    vectors = load_file(steps.run.path("adapter.safetensors"))
    assert sum(z.numel() for z in vectors.values()) == found.training.trainable_parameters
    load_adapter(steps.loaded.model, steps.run.path("adapter.safetensors"))
    score = evaluate(steps.loaded, steps.materials.task, steps.materials.test)
    assert found.training.metric_after == score.metrics["accuracy"]


def test_each_training_step_is_told_and_its_checkpoints_can_be_forgotten(tmp_path):
    steps = steps_in(tmp_path)
    steps.tune("full", 1e-3, None)
    assert steps.progress.begun == [
        "training: full",
        "accuracy after training: full",
        "kernels after full",
    ]
    assert steps.progress.done[:2] == [1, 2]
    assert list(steps.run.path("training-full").glob("checkpoint-2"))
    steps.forget_training("full")
    assert not steps.run.path("training-full").exists()


def test_a_recorded_training_has_the_losses_of_one_that_is_not(tmp_path):
    plain = steps_in(tmp_path / "plain").tune("full", 1e-3, None)
    steps = steps_in(tmp_path / "recorded", sweep=1, **RECORDED)
    found = steps.tune("full", 1e-3, None)
    assert found.training.losses == plain.training.losses
    assert (found.recording.steps, found.recording.examples) == ((0, 2), 4)
    kept = Trajectory.load(steps.recording("full"))
    after = load_kernels(steps.run.path("full_tuned.safetensors"))["full"].matrix
    assert relative(kept.points[-1].own.matrix, after[:8, :8]) < 1e-9


def test_a_recording_takes_the_place_of_one_that_was_cut_short(tmp_path):
    steps = steps_in(tmp_path, **RECORDED)
    steps.recording("lora").mkdir(parents=True)
    (steps.recording("lora") / "rest").write_text("of an earlier try")
    found = steps.record("lora", 1e-3)
    assert (found.method, found.learning_rate, found.diverged) == ("lora", 1e-3, "")
    assert Trajectory.load(steps.recording("lora")).steps == [0, 2]
    assert not (steps.recording("lora") / "rest").exists()


def test_a_recording_that_diverges_keeps_what_was_before_and_a_tuning_is_given_up(tmp_path):
    steps = steps_in(tmp_path, dtype="float32", **RECORDED)
    found = steps.record("full", 1e25)
    assert found.steps == (0,)
    assert "learning rate 1e+25" in found.diverged
    assert Trajectory.load(steps.recording("full")).steps == [0]
    with pytest.raises(TrainingDiverged, match=r"learning rate 1e\+25"):
        steps.tune("full", 1e25, None)
