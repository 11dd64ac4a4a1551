"""The study of the degree: verdicts on made tables, numbers against direct computations."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from analysis.degree import measurements, study, verdicts
from analysis.degree.measurements import FIXED, MATCHED, Settings, distance_apart, steps_to_share
from analysis.fixtures.subject import subject
from analysis.framework.rules import FAILS, HOLDS, NOT_TESTABLE
from analysis.framework.study import execute
from ntk_propulsion.propulsion import PropulsionConfig, wrap
from ntk_propulsion.runs.progress import Progress
from ntk_propulsion.training.descent import descend
from tests import tiny_runs
from tests.architectures import build, tokens

DEGREES = (1, 5, 15, 25, 55)


def settings(**changes) -> Settings:
    small = {
        "model": str(tiny_runs.model()),
        "task": str(tiny_runs.texts()),
        "examples": 6,
        "seeds": 2,
        "steps": 6,
        "batch_size": 4,
        "probe_examples": 24,
        "test_examples": 10,
        "degrees": (1, 15, 55),
        "path_degrees": (5,),
        "path_steps": 3,
        "sgd_shares": (0.5,),
        "adam_rates": (1e-3,),
        "learning_rate": 1e-2,
    }
    return Settings(**small | changes)


def table(fixed, matched, noise=0.01):
    """Rows of three seeds whose mean metrics by degree are those given; NaN stands for diverged."""
    rows = []
    wobble = np.array([[1, -1, 0, 0.5, -0.5], [-1, 0, 1, -0.5, 0.5], [0, 1, -1, 0, 0]]) * noise
    for rate, means in ((FIXED, fixed), (MATCHED, matched)):
        for seed in range(3):
            for i, (k, mean) in enumerate(zip(DEGREES, means, strict=True)):
                metric = mean + wobble[seed, i]
                row = {"kind": "training", "seed": seed, "task": "t", "rate": rate, "degree": k}
                row |= {"configuration": f"{rate} {k}", "metric_name": "accuracy"}
                row["metric"] = None if math.isnan(metric) else metric
                rows.append(row | {"loss": row["metric"], "metric_before": 0.5})
    return rows


FLAT, PEAK, RISE = [0.8] * 5, [0.6, 0.7, 0.8, 0.75, 0.5], [0.6, 0.65, 0.7, 0.75, 0.8]


@pytest.mark.parametrize(
    ("fixed", "matched", "expected"),
    [
        (PEAK, FLAT, [HOLDS, FAILS]),
        (RISE, FLAT, [FAILS, FAILS]),
        (PEAK, RISE, [HOLDS, HOLDS]),
        (FLAT, FLAT, [NOT_TESTABLE, NOT_TESTABLE]),
        ([*PEAK[:4], math.nan], FLAT, [HOLDS, FAILS]),
        ([*RISE[:4], math.nan], FLAT, [HOLDS, FAILS]),  # it rises, and then it diverges
        ([0.8, 0.8, 0.7, 0.6, 0.6], FLAT, [FAILS, FAILS]),  # an end is as good as the best
        ([math.nan] * 5, FLAT, [NOT_TESTABLE, NOT_TESTABLE]),
        ([math.nan] * 5, [math.nan] * 5, [NOT_TESTABLE, NOT_TESTABLE]),
    ],
)
def test_every_verdict_is_reached_by_its_rule(fixed, matched, expected):
    found = verdicts.judge(table(fixed, matched), Settings(degrees=DEGREES))
    assert [(v.id, v.verdict) for v in found] == list(zip(("A1a", "A1b"), expected, strict=True))
    gone = [
        k
        for k, means in zip(DEGREES, zip(fixed, matched, strict=True), strict=True)
        if math.isnan(sum(means))
    ]
    for v in found:
        assert ("left out, as runs diverged: " + ", ".join(map(str, gone)) in v.measured) == bool(
            gone
        )


def test_a_degree_that_diverged_at_one_seed_only_is_left_out():
    rows = table(PEAK, FLAT)
    next(row for row in rows if row["degree"] == 25)["metric"] = None
    assert "diverged: 25" in verdicts.judge(rows, Settings(degrees=DEGREES))[0].measured


def test_steps_to_share_cancels_what_the_batches_do():
    untrained = np.array([1.0, 5, 2, 8, 1, 3, 9, 2, 4, 6])
    assert steps_to_share(untrained, untrained) is None
    assert steps_to_share(0.89 * untrained, untrained) == 5
    falls = untrained * np.array([1.0] * 5 + [0.5] * 5)
    assert steps_to_share(falls, untrained) == 7  # after 6 it is 17.5 of 19, after 7 it is 17 of 23
    assert steps_to_share(np.array([]), untrained) is None
    assert steps_to_share(np.array([0.8, 0.8]), [1.0, 1.0]) == 2


def test_distance_apart_is_relative_to_what_the_reference_moved():
    reference = np.array([0.0, 3.0, 6.0])[:, None, None] + np.full((3, 2, 2), 7.0)
    other = reference + np.array([0.0, 3.0, 3.0])[:, None, None]
    assert distance_apart(other, reference) == pytest.approx([1.0, 0.5])


@pytest.mark.parametrize(("optimiser", "power"), [("sgd", 2), ("adam", 1)])
@pytest.mark.parametrize("k", [2, 15])
def test_degree_is_a_step_size_to_first_order(optimiser, power, k):
    assert measurements.POWERS[optimiser] == power

    def path(k, rate):
        model = wrap(build("bert"), PropulsionConfig(k))
        labels = torch.tensor([0, 1, 1, 0])
        options = {"loss": "cross-entropy", "optimiser": optimiser}
        return descend(model, tokens(4), labels, rate, 3, **options).outputs

    coarse, fine = (
        distance_apart(path(k, rate / k**power), path(1, rate)) for rate in (1e-3, 1e-4)
    )
    assert fine.max() < 0.02
    if optimiser == "sgd":  # Adam's epsilon does not scale along, and leaves a floor
        np.testing.assert_allclose(coarse, 10 * fine, rtol=0.05)
    wrong = distance_apart(path(k, 1e-3 / k ** (3 - power)), path(1, 1e-3))
    assert wrong.min() > 0.3


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("degree")
    outcome = execute(study.STUDY, settings(), folder, overwrite=True, progress=Progress())
    with (folder / "table.csv").open() as file:
        return outcome, list(csv.DictReader(file)), folder


def only(rows, **wanted):
    found = [row for row in rows if all(row[k] == str(v) for k, v in wanted.items())]
    assert found
    return found


def test_the_kernels_of_the_wrapped_models_go_by_the_square(finished):
    outcome, rows, _ = finished
    kernels = only(rows, kind="kernel")
    assert [int(row["degree"]) for row in kernels] == [1, 5, 15, 55]
    assert max(float(row["relative_error"]) for row in kernels) < 1e-5
    assert [check["passed"] for check in outcome["checks"]] == [True]
    rates = {int(row["degree"]): float(row["stable_rate"]) for row in kernels}
    assert rates[15] == pytest.approx(rates[1] / 225, rel=1e-4)


def test_check_fails_on_a_kernel_that_does_not_go_by_the_square():
    rows = [{"kind": "kernel", "relative_error": error} for error in (0.0, 1e-3)]
    (check,) = verdicts.check(rows, Settings())
    assert not check.passed


@pytest.mark.parametrize(("optimiser", "power"), [("sgd", 2), ("adam", 1)])
def test_paths_are_those_of_a_direct_computation(finished, optimiser, power):
    _, rows, _ = finished
    at = subject(settings(), 0)
    stable = float(only(rows, kind="kernel", degree=1)[0]["stable_rate"])
    rate = 0.5 * stable if optimiser == "sgd" else 15 * 1e-3
    labels = np.array([example.label for example in at.materials.drawn])
    f = {}
    for k in (1, 5):
        model = wrap(at.copy().model, PropulsionConfig(k))
        options = {"loss": "cross-entropy", "optimiser": optimiser}
        f[k] = descend(model, at.batch, labels, rate / k**power, 3, **options).outputs
    expected = [
        np.linalg.norm(f[5][t] - f[1][t]) / np.linalg.norm(f[1][t] - f[1][0]) for t in (1, 2, 3)
    ]
    found = only(rows, kind="path", optimiser=optimiser, degree=5)
    assert [float(row["apart"]) for row in found] == pytest.approx(expected, rel=1e-2, abs=1e-6)
    (end,) = only(rows, kind="paths", optimiser=optimiser, degree=5)
    assert float(end["learning_rate"]) == pytest.approx(rate / 5**power, rel=1e-4)
    above = [step for step, value in enumerate(expected, start=1) if value > 0.1]
    assert end["first_step_apart"] == (str(above[0]) if above else "")


def test_trainings_are_those_of_a_direct_computation(finished):
    _, rows, _ = finished
    at = subject(settings(), 1)
    tuned, log = at.tune(PropulsionConfig(55), 1e-2 * 15 / 55)
    (row,) = only(rows, kind="training", seed=1, rate=MATCHED, degree=55)
    assert float(row["metric"]) == pytest.approx(at.metric(tuned), rel=1e-4)
    assert float(row["metric_before"]) == pytest.approx(at.metric(), rel=1e-4)
    assert float(row["loss"]) == pytest.approx(np.mean(log.losses[-5:]), rel=1e-4)
    curve = only(rows, kind="loss", seed=1, rate=MATCHED, degree=55)
    assert [float(r["loss"]) for r in curve] == pytest.approx(log.losses, rel=1e-4)
    assert float(row["gain_min"]) == pytest.approx(float(row["z_min"]) ** 55, rel=1e-3)


def test_matched_rates_make_up_for_the_degree_and_meet_the_fixed_one_at_the_default(finished):
    _, rows, _ = finished
    done = only(rows, kind="training", seed=0)
    rates = {(r["rate"], int(r["degree"])): float(r["learning_rate"]) for r in done}
    for k in (1, 15, 55):
        assert rates[FIXED, k] == 1e-2
        assert rates[MATCHED, k] == pytest.approx(0.15 / k, rel=1e-4)
    fixed, matched = (only(done, rate=rate, degree=15)[0] for rate in (FIXED, MATCHED))
    assert (fixed["loss"], fixed["metric"]) == (matched["loss"], matched["metric"])


def test_untrained_losses_are_on_the_batches_of_the_trainings(finished):
    _, rows, _ = finished
    for seed in (0, 1):
        untrained = only(rows, kind="loss", configuration="untrained", seed=seed)
        for row in only(rows, kind="loss", seed=seed, step=1):
            assert row["loss"] == untrained[0]["loss"]  # the first step's, before any has moved


def test_results_are_complete(finished):
    outcome, _, folder = finished
    assert [v["id"] for v in outcome["verdicts"]] == ["A1a", "A1b"]
    assert json.loads((folder / "verdict.json").read_text())["settings"]["degrees"] == [1, 15, 55]
    assert (folder / "figure.png").stat().st_size > 10_000


def test_runs_that_diverge_are_rows_and_the_study_goes_on(tmp_path: Path):
    chosen = settings(learning_rate=1e25, adam_rates=(1e25,), sgd_shares=(), seeds=1)
    outcome = execute(study.STUDY, chosen, tmp_path, overwrite=True, progress=Progress())
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in only(rows, kind="training"):
        assert "learning rate" in row["note"]
        assert row["metric"] == ""
    (path,) = only(rows, kind="paths")
    assert "after step 1 with learning rate 1.5e+26" in path["note"]
    assert {v["verdict"] for v in outcome["verdicts"]} == {NOT_TESTABLE}
    assert (tmp_path / "figure.png").exists()
