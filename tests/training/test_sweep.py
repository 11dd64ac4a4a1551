import copy
import itertools
import math
from dataclasses import replace

import pytest
import torch

from ntk_propulsion.errors import InputError
from ntk_propulsion.experiment.materials import prepare
from ntk_propulsion.kernels.tunings import Propulsion
from ntk_propulsion.models.scoring import evaluate
from ntk_propulsion.training import sweep
from ntk_propulsion.training.finetuning import TrainingDiverged, finetune
from ntk_propulsion.training.methods import apply_method
from ntk_propulsion.training.sweep import Sweep, Trial, candidate_rates, sweep_learning_rates
from tests import tiny_runs


@pytest.fixture(scope="module")
def found():
    return prepare(tiny_runs.settings())


@pytest.fixture(scope="module")
def held_out(found):
    return sweep.hold_out(found.task)[1]


def swept(found, held_out, method="bitfit", rates=(1e-3, 1e-1), **more):
    return sweep_learning_rates(
        found.loaded, found.task, found.train, held_out, method, rates,
        steps=3, batch_size=4, **more,
    )  # fmt: skip


def test_what_is_held_out_is_no_longer_trained_on(found):
    rest, held = sweep.hold_out(found.task)
    assert len(held) == len(found.task.train) // 5 >= 8
    assert {*rest.train, *held} == {*found.task.train}
    assert not {*rest.train} & {*held}
    assert rest.test == found.task.test


def test_an_experiment_fits_nothing_on_what_its_learning_rates_are_chosen_by():
    chosen = prepare(tiny_runs.settings(steps=2, learning_rate=None))
    assert chosen.validation
    assert not {*chosen.validation} & {*chosen.fitted, *chosen.train}
    given = {"learning_rate": 1e-3, "propulsion_learning_rate": 1e-3, "trajectories": ("none",)}
    assert not prepare(tiny_runs.settings(steps=2, **given)).validation


def test_too_few_examples_to_choose_by_are_refused(found):
    with pytest.raises(InputError, match="39 training examples, too few"):
        sweep.hold_out(replace(found.task, train=found.task.train[:39]))


def trained(found, rate, steps):
    """Return a model trained by hand at a rate, stopped after so many of three steps."""
    again = copy.deepcopy(found.loaded)
    apply_method(again.model, "bitfit")

    def stop(step, loss):
        if step == steps:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(
            again, found.task, found.train, steps=3, learning_rate=rate, batch_size=4, on_step=stop
        )
    return again


def scored(found, held_out, rate, steps):
    """Return the validation loss and the metric of a model trained by hand."""
    result = evaluate(trained(found, rate, steps), found.task, held_out)
    labels = torch.tensor([e.label for e in held_out])
    loss = torch.nn.functional.cross_entropy(result.logits.double(), labels)
    return float(loss), result.metrics["accuracy"]


def test_each_trial_is_a_training_of_its_own_from_theta_0(found, held_out):
    before = copy.deepcopy(found.loaded.model.state_dict())
    trials = swept(found, held_out).trials
    assert [t.learning_rate for t in trials] == [1e-3, 1e-1]
    loss, metric = scored(found, held_out, 1e-1, 3)
    assert trials[1] == Trial(1e-1, pytest.approx(loss, rel=1e-12), metric)
    after = found.loaded.model.state_dict()
    assert all(value.equal(after[name]) for name, value in before.items())


def test_a_trial_that_is_behind_half_way_is_given_up(found, held_out):
    rates = (1e-4, 1e-3, 1e-1)
    half = {rate: scored(found, held_out, rate, 1) for rate in rates}  # one of three steps
    assert half[1e-4][0] > half[1e-3][0] > half[1e-1][0]
    low, middle, high = swept(found, held_out, rates=rates).trials
    assert (middle.stopped_at, high.stopped_at) == (None, None)  # the middle is the first to train
    loss, metric = half[1e-4]
    assert low == Trial(1e-4, pytest.approx(loss, rel=1e-12), metric, stopped_at=1)


def test_trainings_of_one_step_have_no_half_way(found, held_out):
    result = sweep_learning_rates(
        found.loaded, found.task, found.train, held_out, "bitfit", (1e-3, 1e-4), steps=1
    )
    assert [trial.stopped_at for trial in result.trials] == [None, None]


def test_the_rate_of_the_least_loss_is_chosen_and_of_equals_the_smaller():
    trials = (Trial(1e-4, 0.7, 0.5), Trial(1e-3, 0.4, 0.6), Trial(1e-2, 0.4, 0.9))
    assert Sweep("full", trials, 3, 10).chosen == 1e-3
    assert not Sweep("full", trials, 3, 10).at_edge
    assert Sweep("full", trials[1:], 3, 10).at_edge
    assert not Sweep("full", trials[:1], 3, 10).at_edge
    lost = Trial(1e-1, 0.1, 0.9, stopped_at=1)
    assert Sweep("full", (*trials, lost), 3, 10).chosen == 1e-3


def test_a_trial_that_diverges_is_never_chosen(found, held_out, monkeypatch):
    def diverging(loaded, *args, learning_rate, **more):
        if learning_rate > 1e-2:
            raise TrainingDiverged("NaN")
        return finetune(loaded, *args, learning_rate=learning_rate, **more)

    monkeypatch.setattr(sweep, "finetune", diverging)
    result = swept(found, held_out)
    assert result.trials[1] == Trial(1e-1, None, None)
    assert result.chosen == 1e-3
    with pytest.raises(InputError, match=r"bitfit diverged at every learning rate swept \(1\)"):
        _ = swept(found, held_out, rates=[1.0]).chosen


def test_progress_counts_trials(found, held_out):
    told = []
    swept(found, held_out, on_trial=told.append)
    assert told == [1, 2]


def test_candidates_lie_half_decades_apart_about_what_suits_the_method():
    assert candidate_rates("full", 3) == pytest.approx([1.6e-5, 5e-5, 1.6e-4], rel=0.02)
    assert candidate_rates("lora", 1) == [1e-3]
    rates = candidate_rates("ia3", 4)
    ratios = [b / a for a, b in itertools.pairwise(rates)]
    assert ratios == pytest.approx([math.sqrt(10)] * 3, rel=0.05)


def test_propulsion_s_candidates_shrink_as_its_degree_grows():
    low, high = (candidate_rates(Propulsion(degree), 1)[0] for degree in (1, 10))
    assert low == pytest.approx(10 * high)
    assert candidate_rates("propulsion+head", 1) == candidate_rates("propulsion", 1)


@pytest.mark.parametrize(("method", "count", "message"), [
    ("lora", 0, "0 learning rates"), ("random_subset", 3, "no learning rates are known"),
])  # fmt: skip
def test_what_cannot_be_swept_is_refused(method, count, message):
    with pytest.raises(InputError, match=message):
        candidate_rates(method, count)
