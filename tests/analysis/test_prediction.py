"""The study of prediction: made tables, a linear model that nothing may be missed of."""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest
import torch

from analysis.fixtures.descents import Start, compared
from analysis.framework.rules import FAILS, HOLDS, NOT_TESTABLE
from analysis.framework.study import execute, failed
from analysis.framework.tables import load_rows
from analysis.prediction import figure as prediction_figure
from analysis.prediction import measurements, verdicts
from analysis.prediction.measurements import network
from analysis.prediction.signs import PLANS, SignDescent, predicted_and_done
from analysis.prediction.study import STUDY
from ntk_propulsion.errors import InputError
from ntk_propulsion.runs.progress import Progress
from tests import tiny_runs
from tests.tiny_folders import save_model


@functools.cache
def lively() -> str:
    """A tiny BERT whose outputs differ between texts."""
    return str(save_model(tiny_runs.scratch() / "lively-prediction", initializer_range=0.4))


def tiny(**changes):
    small = {"model": lively(), "task": str(tiny_runs.texts()), "probe_examples": 24}
    widths = {"widths": (8, 16), "network_seeds": 2, "network_steps": 5}
    return STUDY.choose(True, **small | widths | {"test_examples": 10} | changes)


def of_networks(power, other=None, noise=0.05, seeds=4):
    rng = np.random.default_rng(0)
    return [
        {
            "kind": "network",
            "loss": loss,
            "width": width,
            "seed": seed,
            "relative_error": width**exponent * float(np.exp(noise * rng.normal())),
        }
        for loss, exponent in (("squared", power), ("cross-entropy", other or power))
        for width in (64, 256, 1024)
        for seed in range(seeds)
    ]


def of_transformer(value, spread=0.0, loss="squared", method="full"):
    steps = STUDY.settings().steps
    about = {"kind": "outputs", "loss": loss, "method": method, "examples": "test", "step": steps}
    return [
        {**about, "seed": seed, "relative_error": value + spread * (seed - 1)} for seed in range(3)
    ]


def judged(rows):
    found = verdicts.judge(rows, STUDY.settings())
    assert [v.id for v in found] == ["P1", "P2"]
    return [v.verdict for v in found]


def test_both_losses_must_fall_with_width_for_p1():
    assert judged(of_networks(-1.0))[0] == HOLDS
    assert judged(of_networks(-1.0, other=-0.2))[0] == FAILS
    assert judged(of_networks(-1.0, seeds=1))[0] == NOT_TESTABLE
    assert judged([])[0] == NOT_TESTABLE


def test_the_worst_method_on_squared_loss_judges_p2():
    good = of_transformer(0.05, 0.001)
    assert judged(good)[1] == HOLDS
    assert judged([*good, *of_transformer(0.9, 0.01, method="lora")])[1] == FAILS
    assert judged([*good, *of_transformer(0.1, 0.05, method="lora")])[1] == NOT_TESTABLE
    assert judged([*good, *of_transformer(0.9, loss="cross-entropy")])[1] == HOLDS


def test_a_training_that_diverged_was_not_predicted():
    lost = {"kind": "outputs", "loss": "squared", "method": "full", "seed": 3, "note": "NaN"}
    assert judged([*of_transformer(0.05), lost])[1] == FAILS


def test_only_the_last_step_on_test_examples_counts():
    early = [{**row, "step": 1} for row in of_transformer(3.0)]
    learnt = [{**row, "examples": "train"} for row in of_transformer(3.0)]
    assert judged([*of_transformer(0.05), *early, *learnt])[1] == HOLDS


def test_a_perfect_prediction_has_no_error_and_that_of_no_change_an_error_of_one():
    rng = np.random.default_rng(0)
    real = rng.normal(size=(3, 5, 2))
    start, *later = compared(real, real)
    assert start["relative_error"] is None
    for row in later:
        assert row["relative_error"] == 0
        assert row["cosine"] == pytest.approx(1)
    still = compared(np.repeat(real[:1], 3, axis=0), real)
    assert still[2]["relative_error"] == 1
    assert still[2]["cosine"] is None


def test_last_layers_alone_are_predicted_to_rounding_and_whole_networks_better_when_wide():
    chosen = tiny(examples=6, widths=(16, 512), network_steps=10)
    narrow, wide = network(chosen, 16, 0), network(chosen, 512, 0)
    assert {(r["loss"], r.get("optimiser")) for r in narrow if r["kind"] == "linear"} == {
        ("squared", None),
        ("cross-entropy", None),
        ("squared", "signs, one by one"),
    }
    assert all(check.passed for check in verdicts.check(narrow, chosen))
    assert [r["kind"] for r in wide] == ["network", "network"]
    for few, many in zip(narrow, wide, strict=False):
        assert 0 < many["relative_error"] < few["relative_error"]


def test_a_last_layer_that_is_missed_fails_its_check():
    made = {"kind": "linear", "loss": "squared", "relative_error": 1e-3}
    (found,) = verdicts.check([made], STUDY.settings())
    assert not found.passed


def test_sign_descent_is_adam_without_memory():
    model = torch.nn.Linear(4, 1, dtype=torch.float64)
    twins = [copy.deepcopy(model) for _ in range(2)]
    x = torch.randn(7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    optimisers = [
        SignDescent(twins[0].parameters(), lr=0.1),
        torch.optim.Adam(twins[1].parameters(), lr=0.1, betas=(0.0, 0.0), eps=1e-30),
    ]
    for _ in range(5):
        for made, optimiser in zip(twins, optimisers, strict=True):
            optimiser.zero_grad()
            (made(x) - x[:, :1]).square().mean().backward()
            optimiser.step()
    for a, b in zip(twins[0].parameters(), twins[1].parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_linear_models_sign_descent_is_exact_one_by_one_and_not_by_the_other_kernel():
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1, dtype=torch.float64)
    x = torch.randn(12, 4, dtype=torch.float64)
    start = Start(model, x[:6], np.sign(x[:6, :1].numpy() + 0.1))
    others = x[6:]
    gradients = start.kernel(), start.kernel(others)
    found = list(predicted_and_done(start, others, gradients, 4, 0))
    assert len(found) == 2 * 2 * len(PLANS)
    exact = {
        (r["kernel"], r["examples"]): r["relative_error"]
        for r in found
        if r["optimiser"] == PLANS[0].name
    }
    assert max(v for (kernel, _), v in exact.items() if kernel == "asymmetric") < 1e-12
    assert min(v for (kernel, _), v in exact.items() if kernel == "symmetric") > 1e-3
    assert {r["step"] for r in found} == {6, 4}


def test_a_tiny_study_runs_from_end_to_end(tmp_path):
    chosen = tiny(methods=("full", "lora"), seeds=1)
    found = execute(STUDY, chosen, tmp_path / "a", progress=Progress())
    assert failed(found) == []
    for name in ("figure", "networks", "signs"):
        assert (tmp_path / "a" / f"{name}.png").is_file()
    rows = load_rows(tmp_path / "a")
    of = {
        (r["seed"], r["method"], r["loss"], r["examples"], r["step"])
        for r in rows
        if r["kind"] == "outputs"
    }
    assert len(of) == 2 * 2 * 2 * len(chosen.recorded)
    regressions = [r for r in rows if r["kind"] == "regression"]
    assert {str(r["offset"]) for r in regressions} == {"0", "f0"}
    assert {r["method"] for r in rows if r["kind"] == "sign"} == {"full"}


@pytest.mark.parametrize("method", ["full", "propulsion", "lora"])
def test_a_small_first_step_is_predicted_by_the_kernel_of_what_trains(method, monkeypatch):
    monkeypatch.setattr(measurements, "SHARE", 0.003)
    monkeypatch.setattr(measurements, "SIGNED", ())
    rows = measurements._Seed(tiny(steps=1), 0).rows(method)
    first = [r["relative_error"] for r in rows if r["kind"] == "outputs" and r["step"] == 1]
    assert len(first) == 4
    assert max(first) < 0.05


def test_a_diverged_training_leaves_its_place_in_the_figure_empty():
    lost = {"kind": "outputs", "loss": "squared", "method": "full", "seed": 0, "note": "NaN"}
    rest = {"accuracy": 0.5, "accuracy_predicted": 0.5, "label_agreement": 1.0}
    rows = [
        {**row, **rest, "step": step, "relative_error": 0.1 * step or None}
        for step in (0, 1, 2)
        for loss in ("squared", "cross-entropy")
        for row in of_transformer(0.2, loss=loss, method="lora")
    ]
    assert prediction_figure.transformer([lost, *rows], 0.1, "made up").axes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outputs": "logits"}, "defined for one output"),
        ({"widths": (8,)}, "a slope needs two widths"),
        ({"network_seeds": 0}, "a slope needs two widths and a seed"),
        ({"sign_steps": 0}, "train for at least 1"),
        ({"seeds": 0}, "give 1 or more"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_a_sentence(changes, message, tmp_path):
    with pytest.raises(InputError, match=message):
        execute(STUDY, tiny(**changes), tmp_path / "run", progress=Progress())


def test_the_recorded_steps_begin_at_the_start_and_end_at_the_end():
    assert STUDY.settings().recorded == [0, 1, 2, 5, 10, 20, 30]
    assert tiny(steps=5).recorded == [0, 1, 2, 5]
