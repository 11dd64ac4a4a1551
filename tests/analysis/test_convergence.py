"""The study of convergence: the rule on made tables, the trainings on a tiny model."""

import itertools
import math
from dataclasses import asdict

import pytest
import torch

from analysis.convergence import measurements, runs, verdicts
from analysis.convergence.measurements import METHODS, Settings
from analysis.convergence.study import STUDY
from analysis.framework.rules import FAILS, HOLDS, NOT_TESTABLE
from analysis.framework.study import execute, failed
from analysis.framework.tables import load_rows
from ntk_propulsion.errors import InputError
from ntk_propulsion.runs.progress import Progress
from ntk_propulsion.training.finetuning import TrainingDiverged, finetune
from ntk_propulsion.training.methods import apply_method
from tests import tiny_runs


def settings(**changes):
    small = {
        "model": str(tiny_runs.model()),
        "tasks": (str(tiny_runs.texts()),),
        "sizes": (8, 16),
        "seeds": 2,
        "steps": 5,
        "at": (1, 3),
        "batch_size": 4,
        "max_length": 12,
        "test_examples": 10,
        "sweep": 2,
        "sweep_steps": 2,
        "sweep_size": 12,
    }
    return Settings(**small | changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("convergence") / "run"
    return folder, execute(STUDY, settings(seeds=1), folder, progress=Progress())


def test_every_method_is_evaluated_at_every_step_of_every_place(finished):
    folder, outcome = finished
    rows = load_rows(folder)
    found = [
        (r["size"], r["seed"], r["method"], r["step"]) for r in rows if r["kind"] == "evaluation"
    ]
    assert sorted(found) == sorted(itertools.product((8, 16), (0,), METHODS, (0, 1, 3, 5)))
    assert failed(outcome) == []
    assert [v["id"] for v in outcome["verdicts"]] == ["E2"]
    assert {path.name for path in folder.glob("*.png")} == {"figure.png", "sizes.png"}


def test_a_method_trains_at_the_rate_of_its_least_validation_loss(finished):
    rows = load_rows(finished[0])
    trials = [row for row in rows if row["kind"] == "trial"]
    assert len(trials) == 2 * len(METHODS)
    for method in METHODS:
        best = min((t for t in trials if t["method"] == method), key=lambda t: t["validation_loss"])
        used = {r["learning_rate"] for r in rows if r["kind"] != "trial" and r["method"] == method}
        assert used == {best["learning_rate"]}


def test_the_table_read_back_is_judged_the_same(finished):
    folder, outcome = finished
    (found,) = STUDY.judge(load_rows(folder), settings(seeds=1))
    assert asdict(found) == outcome["verdicts"][0]


@pytest.mark.parametrize("method", METHODS)
def test_a_run_with_evaluations_gives_the_numbers_of_one_without(method):
    place = measurements._Place(settings(at=(1, 2, 3, 4)), 1, str(tiny_runs.texts()))
    evaluated, rows = place.trained(method, 16, 3e-3)
    plain = place.start(16)
    apply_method(plain.model, place.settings.tuning(method), steps=5, seed=1)
    log = finetune(
        plain, place.held[0], place.train(16), steps=5, learning_rate=3e-3, batch_size=4, seed=1,
        warmup=4, schedule="constant_with_warmup",
    )  # fmt: skip
    assert [row["train_loss"] for row in rows] == [None, *log.losses]
    assert rows[-1]["metric"] == place.at.metric(plain)
    other = plain.model.state_dict()
    assert all(torch.equal(v, other[k]) for k, v in evaluated.model.state_dict().items())
    start = place.start(16).model.classifier.weight
    heads = [p for _, p in plain.model.named_parameters() if p.requires_grad]
    assert any(p.shape == start.shape and not p.equal(start) for p in heads)


def test_validation_examples_are_never_trained_on_and_small_sets_begin_large_ones():
    place = measurements._Place(settings(), 0, str(tiny_runs.texts()))
    small, large = place.train(8), place.train(30)
    assert large[:8] == small
    assert sum(e.label for e in small) == 4
    assert not {e.index for e in place.held[1]} & {e.index for e in large}


def test_a_probe_is_fitted_to_the_training_examples_alone():
    place = measurements._Place(settings(head="probe"), 0, str(tiny_runs.texts()))
    weights = [place.start(n).model.classifier.weight for n in (8, 8, 16)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_training_that_diverges_keeps_what_was_before(monkeypatch):
    def diverging(*args, on_step, **more):
        on_step(1, 0.7)
        raise TrainingDiverged("loss is NaN at step 2")

    monkeypatch.setattr(measurements, "finetune", diverging)
    place = measurements._Place(settings(), 0, str(tiny_runs.texts()))
    rows = place.rows("full", 8, 1.0)
    assert [row["step"] for row in rows if row["metric"] is not None] == [0, 1]
    assert [row["train_loss"] for row in rows] == [None, 0.7, None, None]


def made(metrics, size=16, seed=0):
    """Return the evaluations at steps 0, 10, 20 of methods by name."""
    return [
        {
            "kind": "evaluation",
            "task": "a",
            "size": size,
            "seed": seed,
            "method": method,
            "learning_rate": 1e-3,
            "metric_name": "accuracy",
            "step": 10 * i,
            "metric": value,
            "train_loss": None,
        }
        for method, values in metrics.items()
        for i, value in enumerate(values)
    ]


def test_steps_to_the_level_are_those_of_the_rule():
    metrics = {
        "full": (0.5, 0.9, 0.6),  # level: 0.5 + 0.9 * 0.4 = 0.86
        "propulsion": (0.5, 0.86, 0.4),
        "lora": (0.5, 0.85, 0.87),
        "adalora": (0.5, 0.85, None),
    }
    found = {row["method"]: row for row in runs.runs(made(metrics), never=30)}
    assert found["full"]["level"] == pytest.approx(0.86)
    assert {m: r["steps_to_level"] for m, r in found.items()} == {
        "full": 10, "propulsion": 10, "lora": 20, "adalora": 30,
    }  # fmt: skip
    assert [found[m]["reached"] for m in metrics] == [True, True, True, False]
    assert (found["full"]["final_metric"], found["full"]["best_metric"]) == (0.6, 0.9)
    assert (found["adalora"]["final_metric"], found["adalora"]["best_metric"]) == (None, 0.85)


@pytest.mark.parametrize("full", [(0.5, 0.5, 0.4), (0.5, None, None), (None, 0.6, 0.7)])
def test_where_full_fine_tuning_improves_nothing_there_is_no_level(full):
    rows = runs.runs(
        made({"full": full, "propulsion": (0.5, 0.9, 0.9), "lora": (0.5,) * 3}), never=30
    )
    assert {row["level"] for row in rows} == {row["steps_to_level"] for row in rows} == {None}


def table(steps, seeds=4, sizes=(16, 64)):
    """Return a table in which a method needs so many steps, by seed."""
    shared = {"kind": "run", "task": "a", "level": 0.8, "reached": True}
    return [
        {**shared, "size": size, "seed": seed, "method": method, "steps_to_level": counts[seed]}
        for size, seed in itertools.product(sizes, range(seeds))
        for method, counts in ({"full": (8,) * seeds} | steps).items()
    ]


def verdict(*table_of):
    (found,) = verdicts.judge(table(*table_of), Settings())
    return found.verdict


def test_each_verdict_can_be_reached():
    slow, slower, fast = (32, 32, 16, 32), (48, 32, 32, 48), (4, 4, 6, 4)
    eight, mixed = (8, 8, 8, 8), (4, 32, 4, 32)
    assert verdict({"propulsion": eight, "lora": slow, "adalora": slower}) == HOLDS
    assert verdict({"propulsion": eight, "lora": fast, "adalora": slower}) == FAILS
    assert verdict({"propulsion": eight, "lora": mixed, "adalora": slower}) == NOT_TESTABLE
    (nothing,) = verdicts.judge([], Settings())
    assert nothing.verdict == NOT_TESTABLE


def test_ratios_are_means_over_sizes_paired_over_seeds():
    rows = table({"propulsion": (8, 8), "lora": (16, 64), "adalora": (8, 8)}, seeds=2, sizes=(16,))
    rows += table({"propulsion": (8, 8), "lora": (8, 8), "adalora": (8, 8)}, seeds=2, sizes=(64,))
    found = verdicts.ratios(rows)
    assert found["lora"].value == pytest.approx((0.5 + 1.5) / 2)
    assert found["lora"].high - found["lora"].value == pytest.approx(
        25.45 * math.sqrt(0.5) / math.sqrt(2), rel=1e-3  # t at 1 - 0.05/4, one degree of freedom
    )  # fmt: skip
    assert found["adalora"].value == 0


def test_a_place_without_a_level_is_left_out_and_counted():
    steps = {"propulsion": (8, 8), "lora": (16, 16), "adalora": (16, 16)}
    rows = table(steps, seeds=2)
    for row in rows:
        if (row["size"], row["seed"]) == (64, 1):
            row |= {"level": None, "steps_to_level": None, "reached": None}
    (found,) = verdicts.judge(rows, Settings())
    assert "improved nothing: 1" in found.measured
    assert "reached in 3 places" in found.measured
    assert verdicts.ratios(rows)["lora"].value == 1


def test_unequal_starts_and_unequal_sweeps_fail_the_checks():
    rows = made({"full": (0.5, 0.9), "lora": (0.5, 0.6)})
    trials = [
        {"kind": "trial", "task": "a", "method": method, "learning_rate": rate}
        for method, rate in itertools.product(("full", "lora"), (1e-3, 1e-2))
    ]
    assert all(c.passed for c in verdicts.check([*trials, *rows], Settings()))
    start, swept = verdicts.check([*trials[1:], *rows], Settings())
    assert start.passed
    assert not swept.passed
    rows[0]["metric"] = 0.51
    assert not verdicts.check([*trials, *rows], Settings())[0].passed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": "checkpoint"}, "give random or probe"),
        ({"at": (1, 6)}, "from 0 to --steps 5"),
        ({"seeds": 0}, "give 1 or more"),
        ({"sizes": (8, 400)}, "cannot draw 400"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_a_sentence(changes, message, tmp_path):
    with pytest.raises(InputError, match=message):
        execute(STUDY, settings(**changes), tmp_path / "run", progress=Progress())


def test_what_counts_as_never_is_an_evaluation_more():
    assert settings(steps=20, at=(5, 14)).never == 26
    assert settings(steps=1, at=()).never == 2
