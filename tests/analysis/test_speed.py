"""The study of speed: steps counted against closed forms, verdicts on made tables."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.fixtures.descents import Start, start_of
from analysis.fixtures.subject import subject
from analysis.framework.rules import FAILS, HOLDS, NOT_TESTABLE
from analysis.framework.study import execute, failed
from analysis.framework.tables import load_rows
from analysis.speed import verdicts
from analysis.speed.measurements import CAPPED, DIVERGED, crossing, descended, predicted_steps
from analysis.speed.study import STUDY
from ntk_propulsion.errors import InputError
from ntk_propulsion.runs.progress import Progress
from ntk_propulsion.theory.convergence import LossCurve
from tests import tiny_runs
from tests.tiny_folders import save_model

CAP = 60


@functools.cache
def lively() -> str:
    """A tiny BERT whose outputs differ between texts."""
    return str(save_model(tiny_runs.scratch() / "lively-speed", initializer_range=0.4))


def tiny(**changes):
    small = {"model": lively(), "task": str(tiny_runs.texts()), "probe_examples": 24}
    return STUDY.choose(True, **small | {"test_examples": 10} | changes)


@given(st.floats(0.05, 0.95), st.floats(1e-4, 0.99))
def test_a_loss_that_halves_evenly_crosses_where_its_logarithm_says(decay, level):
    losses = decay ** np.arange(200.0)
    found = crossing(losses, level)
    if losses[-1] > level:
        assert found is None
    else:
        assert found == pytest.approx(math.log(level) / math.log(decay), rel=1e-9)


def test_a_level_that_is_there_at_once_takes_no_step_and_one_never_met_is_none():
    assert crossing(np.array([1.0, 0.5]), 2.0) == 0.0
    assert crossing(np.array([1.0, 0.5, 0.7]), 0.4) is None
    assert crossing(np.array([1.0, 0.25, 9.0, 0.1]), 0.25) == 1.0  # the first time counts


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.floats(0.05, 0.9), st.floats(0.05, 0.95))
def test_predicted_steps_are_those_of_the_whole_predicted_curve(seed, level, share):
    rng = np.random.default_rng(seed)
    J = rng.normal(size=(6, 6))
    curve = LossCurve.of(J @ J.T + np.eye(6), rng.normal(size=6), rng.normal(size=6))
    rate, loss = share * curve.stable_rate, level * curve.initial
    whole = curve.after(rate, np.arange(curve.steps_to(loss, rate) + 5))
    assert predicted_steps(curve, loss, rate) == pytest.approx(crossing(whole, loss), rel=1e-9)


def linear_start(examples=5):
    model = torch.nn.Linear(8, 1, dtype=torch.float64)
    x = torch.randn(examples, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Start(model, x, np.sign(x[:, :1].numpy()))


def test_a_linear_model_descends_as_predicted_in_pieces_as_in_one():
    start = linear_start()
    curve = LossCurve.of(start.kernel(), start.f0(), start.targets)
    before = start.f0()
    losses, outcome = descended(start, 0.5 * curve.stable_rate, 0.0, 25)
    assert outcome == CAPPED
    np.testing.assert_allclose(losses, curve.after(0.5 * curve.stable_rate, np.arange(26)))
    np.testing.assert_array_equal(start.f0(), before)
    level = 0.3 * curve.initial
    soon, _ = descended(start, 0.5 * curve.stable_rate, level, 25)
    assert soon.min() <= level
    assert len(soon) <= len(losses)


def test_a_descent_that_diverges_says_so():
    start = linear_start()
    _, outcome = descended(start, 1e200, 0.0, 25)
    assert outcome == DIVERGED


def row(method, seed, predicted, measured, level=0.5, rates="matched"):
    return {
        "kind": "steps",
        "seed": seed,
        "method": method,
        "rates": rates,
        "learning_rate": 0.1,
        "level": level,
        "predicted": predicted,
        "measured": measured,
        "outcome": "reached",
    }


def outcome(*rows):
    (found,) = verdicts.judge(rows, STUDY.settings())
    assert found.id == "E2b"
    return found.verdict


def test_each_verdict_can_be_reached():
    close = [row("full", seed, 10, 10 + 0.1 * seed) for seed in range(3)]
    assert outcome(*close) == HOLDS
    assert outcome(*close, *(row("lora", seed, 10, 4 + 0.1 * seed) for seed in range(3))) == FAILS
    assert outcome(*close, row("lora", 0, 10, 11)) == NOT_TESTABLE  # one seed has no interval
    assert outcome() == NOT_TESTABLE


def test_what_did_not_get_there_as_predicted_counts_as_one_step_more_than_the_cap():
    rows = [row("full", seed, 10, None) for seed in range(3)]
    assert verdicts.octaves(rows, STUDY.settings()) == {("full", 0.5): [math.log2(6.1)] * 3}
    assert outcome(*rows) == FAILS


def test_a_level_predicted_beyond_the_cap_at_a_seed_is_left_out_at_all():
    far = [row("ia3", 0, CAP + 1, None), row("ia3", 1, 20, 19), row("ia3", 2, 20, 90)]
    assert verdicts.octaves(far, STUDY.settings()) == {("ia3", 0.5): None}
    close = [row("full", seed, 10, 10) for seed in range(3)]
    assert outcome(*close, *far) == NOT_TESTABLE  # a method without any level


def test_the_fixed_rate_and_the_linear_method_do_not_judge():
    close = [row("full", seed, 10, 10) for seed in range(3)]
    others = [row("lora", seed, 10, None, rates="fixed") for seed in range(3)]
    others += [row("head", seed, 10, 30) for seed in range(3)]
    assert outcome(*close, *others) == HOLDS


def test_a_linear_method_that_misses_its_prediction_fails_the_check():
    def passed(measured):
        (found,) = verdicts.check([row("head", 0, 10, measured)], STUDY.settings())
        return found.passed

    assert passed(10.4)
    assert not passed(12.0)
    assert not passed(None)
    assert verdicts.check([row("full", 0, 10, 30)], STUDY.settings()) == []


def test_the_kernel_of_a_lora_is_that_of_the_factors_it_drew():
    chosen = tiny()
    at = subject(chosen, 0, train=False, max_length=chosen.max_length)
    for method in ("lora", "propulsion"):
        start = start_of(at, method, 6)
        curve = LossCurve.of(start.kernel(), start.f0(), start.targets, rtol=1e-6)
        rate = 0.01 * curve.stable_rate
        real = start.descend(rate, 1).losses
        fall = curve.initial - float(curve.after(rate, 1))
        assert real[0] - real[1] == pytest.approx(fall, rel=0.05)


def test_a_tiny_study_runs_from_end_to_end(tmp_path):
    chosen = tiny(methods=("full", "propulsion", "head"))
    found = execute(STUDY, chosen, tmp_path / "a", progress=Progress())
    assert failed(found) == []
    assert [v["id"] for v in found["verdicts"]] == ["E2b"]
    assert (tmp_path / "a" / "figure.png").is_file()
    rows = load_rows(tmp_path / "a")
    assert {r["rates"] for r in rows if r["kind"] == "steps"} == {"matched", "fixed"}
    by_rate = {(r["seed"], r["method"], r["rates"]): r["learning_rate"] for r in rows if r["level"]}
    for seed in range(chosen.seeds):
        own = [v for (s, _, rates), v in by_rate.items() if (s, rates) == (seed, "matched")]
        slow = {v for (s, _, rates), v in by_rate.items() if (s, rates) == (seed, "fixed")}
        assert slow == {min(own)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"levels": (0.5, 1.5)}, "shares between 0 and 1"),
        ({"outputs": "sum", "head": "random"}, "no classes to train on"),
        ({"methods": ("full", "rowcolumn")}, "trains parts of parameters"),
        ({"seeds": 0}, "give 1 or more"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_a_sentence(changes, message, tmp_path):
    with pytest.raises(InputError, match=message):
        execute(STUDY, tiny(**changes), tmp_path / "run", progress=Progress())
