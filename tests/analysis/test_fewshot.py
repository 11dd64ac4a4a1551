"""The few-shot study: verdicts on made tables, what each run sees, numbers computed directly."""

from __future__ import annotations

import csv
import functools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st

from analysis.fewshot import figure as fewshot_figure
from analysis.fewshot import measurements, study, verdicts
from analysis.fewshot.figure import Place, cell_estimates
from analysis.fewshot.measurements import Settings
from analysis.fewshot.study import STUDY
from analysis.fixtures.subject import Subject
from analysis.framework.rules import FAILS, HOLDS, NOT_TESTABLE
from analysis.framework.study import execute, failed
from analysis.framework.tables import load_rows
from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.reference import reference_jacobian
from ntk_propulsion.models.tokens import encode
from ntk_propulsion.runs.progress import Progress
from ntk_propulsion.training.finetuning import TrainingDiverged
from tests import tiny_runs
from tests.tiny_folders import save_model


@functools.cache
def lively() -> str:
    """A tiny BERT whose outputs differ between texts, so that float32 kernels are no constant."""
    return str(save_model(tiny_runs.scratch() / "lively-shots", initializer_range=0.4))


def settings(**changes) -> Settings:
    small = {
        "model": lively(),
        "tasks": (str(tiny_runs.texts()),),
        "examples": 4,
        "seeds": 2,
        "shots": (2, 3),
        "full_seeds": 1,
        "steps": 2,
        "batch_size": 4,
        "probe_examples": 24,
        "test_examples": 10,
        "solve_examples": 8,
        "max_length": 12,
        "memory": "200MiB",
    }
    return Settings(**small | changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("fewshot") / "run"
    return folder, execute(STUDY, settings(shots=(3,)), folder, progress=Progress())


def test_every_head_size_seed_and_method_has_a_row(finished: tuple[Path, dict]) -> None:
    folder, outcome = finished
    rows = load_rows(folder)
    found = [(r["head"], r["seed"], r["k"], r["method"]) for r in rows]
    assert len(set(found)) == len(found)
    assert set(found) == {
        (head, seed, k, method)
        for head in ("probe", "random")
        for seed in (0, 1)
        for k in ((3, "all") if seed == 0 else (3,))
        for method in ("full", "propulsion")
    }
    assert failed(outcome) == []
    assert [v["id"] for v in outcome["verdicts"]] == ["K1", "K2"]
    for row in rows:
        assert row["gap"] == pytest.approx(row["after"] - row["kernel"], abs=1e-5)
        assert row["solve_examples"] == (8 if row["k"] == "all" else 2 * row["k"])
        assert row["linearization"] > 0
        assert row["drift"] > 0
        assert row["regime"] in ("holds", "weakly", "undecided", "not")
    for name in ("figure", "accuracies"):
        assert (folder / f"{name}.png").stat().st_size > 10_000


@pytest.mark.parametrize("head", ["probe", "random"])
def test_a_k_shot_run_sees_nothing_but_its_balanced_shots(
    head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted, tuned = [], []
    fit = measurements.fit_probe

    def fitting(loaded, task, examples, **more):
        fitted.append(examples)
        return fit(loaded, task, examples, **more)

    def tuning(self, config, rate):
        tuned.append(self.materials.train)
        raise TrainingDiverged("what it was to train on is known")

    monkeypatch.setattr(measurements, "fit_probe", fitting)
    monkeypatch.setattr(Subject, "tune", tuning)
    measurements._rows(settings(), str(tiny_runs.texts()), head, 0)
    two, three, whole = tuned[::2]
    assert tuned[1::2] == [two, three, whole]
    assert [[e.label for e in shots].count(c) for shots in (two, three) for c in (0, 1)] == [
        *(2, 2),
        *(3, 3),
    ]
    assert len(whole) == 8
    assert two == three[:4]
    if head == "probe":
        assert fitted[:2] == [two, three]
        assert len(fitted[2]) == 24
    else:
        assert fitted == []


def test_the_kernel_solve_agrees_with_jacobians_held_whole() -> None:
    at = measurements.subject(settings(head="random"), 0, str(tiny_runs.texts()), max_length=12)
    shots = measurements.draw(at.materials.task, 8, split="train", seed=0)
    start = measurements._Start(at, shots)
    row = start.solve("full", 6)
    model, loaded = at.model, at.materials.loaded
    names = [name for name, _ in model.named_parameters()]
    batches = [encode(loaded, examples).batch for examples in (shots[:6], at.materials.test)]
    X, Z = (
        torch.cat(list(reference_jacobian(model, b, "margin", names).values()), 1)
        .detach()
        .double()
        .numpy()
        for b in batches
    )
    with torch.no_grad():
        f, g = (
            (logits[:, 1] - logits[:, 0]).double().numpy()
            for logits in (model(**b).logits for b in batches)
        )
    K = X @ X.T
    y = np.array([1.0 if e.label else -1.0 for e in shots[:6]])
    truth = np.array([e.label for e in at.materials.test])
    for name, ridge, offsets in (
        ("kernel", row["ridge"], (f, g)),
        ("kernel_from_0", row["ridge_from_0"], (0 * f, 0 * g)),
    ):
        shifted = K + ridge * np.linalg.norm(K, 2) * np.eye(len(K))
        predicted = offsets[1] + Z @ X.T @ np.linalg.solve(shifted, y - offsets[0])
        assert np.abs(predicted).min() > 1e-3 * np.abs(predicted).max()
        assert row[name] == pytest.approx(np.mean((predicted > 0) == truth))
    assert row["kernel_at_huge_ridge"] == pytest.approx(np.mean((g > 0) == truth))


def test_fewer_shots_of_a_larger_kernel_are_those_of_their_own() -> None:
    at = measurements.subject(settings(head="random"), 1, str(tiny_runs.texts()), max_length=12)
    shots = measurements.draw(at.materials.task, 8, split="train", seed=1)
    larger, own = measurements._Start(at, shots), measurements._Start(at, shots[:4])
    n = len(at.materials.test) + 4
    for name, K in own.kernels.items():
        error = np.linalg.norm(larger.kernels[name][:n, :n] - K)
        assert error < 1e-5 * np.linalg.norm(K)
        assert larger.solve(name, 4) == own.solve(name, 4)


class Made(measurements._Start):
    """A start whose kernels and outputs are given, not a model's."""

    kernels = None  # type: ignore[assignment]
    outputs = None  # type: ignore[assignment]

    def __init__(self, at: Subject, seed: int) -> None:
        super().__init__(at, measurements.draw(at.materials.task, 6, split="train", seed=0))
        rng = np.random.default_rng(seed)
        size = len(self.test) + 6
        J = rng.normal(size=(size, 9)) * 10 ** rng.uniform(-3, 3)
        self.kernels = {"full": J @ J.T}
        self.outputs = rng.normal(size=(size, 1))


@functools.cache
def subject_of_all() -> Subject:
    return measurements.subject(settings(head="random"), 0, str(tiny_runs.texts()), max_length=12)


@trials(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_a_solve_at_a_huge_ridge_is_f_0_and_no_scale_matters(seed: int) -> None:
    start = Made(subject_of_all(), seed)
    row = start.solve("full", 6)
    assert row["kernel_at_huge_ridge"] == start.accuracy(start.outputs[: len(start.test)])
    start.kernels = {"full": 64.0 * start.kernels["full"]}
    assert start.solve("full", 6) == row


def test_logits_and_margin_start_from_one_accuracy() -> None:
    found = []
    for outputs in ("margin", "logits"):
        chosen = settings(outputs=outputs, shots=(3,), full_seeds=0, examples=2)
        (full, propulsion) = measurements._rows(chosen, str(tiny_runs.texts()), "random", 0)
        assert full["before"] == propulsion["before"] == full["kernel_at_huge_ridge"]
        found.append((full["before"], full["after"], propulsion["after"]))
    assert found[0] == found[1]


def diverging(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    tune = Subject.tune

    def diverge(self, config, rate):
        if config is not None:
            raise TrainingDiverged("loss is NaN at step 2")
        return tune(self, config, rate)

    monkeypatch.setattr(Subject, "tune", diverge)
    chosen = settings(full_seeds=0, examples=2)
    return measurements._rows(chosen, str(tiny_runs.texts()), "random", 0)


def test_a_training_that_diverges_is_a_row_and_leaves_its_cell_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = diverging(monkeypatch)
    lost = [row for row in rows if row["regime"] == "diverged"]
    assert [(row["method"], row["k"]) for row in lost] == [("propulsion", 2), ("propulsion", 3)]
    assert lost[0]["note"] == "loss is NaN at step 2"
    assert "kernel" in lost[0]
    assert [v.verdict for v in verdicts.judge(lost, settings())] == [NOT_TESTABLE] * 2
    assert all(check.passed for check in verdicts.check(rows, settings()))
    assert len(study.draw_figures(rows, settings())) == 2


def made(gap=(0.01, -0.01, 0.0), error=(0.2, 0.21, 0.19), drift=(0.2, 0.21, 0.19), **changes):
    return [
        {
            "task": "a",
            "head": "probe",
            "k": 16,
            "seed": seed,
            "method": method,
            "train_examples": 32,
            "solve_examples": 32,
            "fewest_of_a_class": 16,
            "most_of_a_class": 16,
            "before": 0.6,
            "kernel": 0.7,
            "kernel_from_0": 0.65,
            "kernel_at_huge_ridge": 0.6,
            "after": 0.7 + gap[seed],
            "gap": gap[seed],
            "linearization": error[seed],
            "drift": drift[seed],
            "regime": "weakly",
            "kernel_error": 1e-6,
        }
        | changes
        for method in ("full", "propulsion")
        for seed in range(3)
    ]


def judged(rows: list[dict]) -> list[str]:
    return [v.verdict for v in verdicts.judge(rows, Settings(seeds=3))]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [HOLDS, HOLDS]),
        ({"error": (0.9, 0.91, 0.89)}, [FAILS, HOLDS]),
        ({"drift": (0.9, 0.91, 0.89)}, [FAILS, HOLDS]),
        ({"error": (0.1, 0.5, 0.9)}, [NOT_TESTABLE, HOLDS]),
        ({"gap": (0.3, 0.31, 0.29)}, [HOLDS, FAILS]),
        ({"gap": (-0.3, -0.31, -0.29)}, [HOLDS, FAILS]),
        ({"gap": (-0.2, 0.0, 0.2)}, [HOLDS, NOT_TESTABLE]),
    ],
)
def test_each_verdict_can_be_reached(changes: dict, expected: list[str]) -> None:
    assert judged(made(**changes)) == expected


def test_the_full_data_is_told_and_not_judged() -> None:
    worse = made(gap=(0.4, 0.41, 0.39), error=(0.9, 0.91, 0.89), k="all")
    assert judged([*made(), *worse]) == [HOLDS, HOLDS]
    assert judged(worse) == [NOT_TESTABLE, NOT_TESTABLE]
    first, second = verdicts.judge([*made(), *worse], Settings())
    assert "Full data, not judged: linearization error: a probe full data full 0.9" in (
        first.measured
    )
    assert "0.700 kernel solve (0.650 from f = 0), gap 0.4" in second.measured


def test_one_failing_cell_fails_both_claims() -> None:
    bad = made(gap=(0.4, 0.41, 0.39), error=(0.9, 0.91, 0.89), head="random")
    assert judged([*made(), *bad]) == [FAILS, FAILS]


def test_more_cells_widen_the_gaps_intervals() -> None:
    one = cell_estimates(made(), "gap")
    many = cell_estimates(made(), "gap", comparisons=8)
    place = Place("a", "probe", 16, "full")
    assert many[place].value == one[place].value
    assert many[place].high > one[place].high


def test_a_lost_value_makes_the_interval_infinite_and_keeps_the_mean_of_the_rest() -> None:
    rows = made(gap=(0.1, 0.2, 0.3))
    del rows[0]["gap"]
    found = cell_estimates(rows, "gap")[Place("a", "probe", 16, "full")]
    assert (found.value, found.low, found.high) == (pytest.approx(0.25), -math.inf, math.inf)
    assert math.isnan(fewshot_figure.mean([None]))


@pytest.mark.parametrize(
    ("changes", "number"),
    [
        ({"most_of_a_class": 17}, 0),
        ({"fewest_of_a_class": 15}, 0),
        ({"train_examples": 240}, 0),
        ({"kernel_at_huge_ridge": 0.61}, 1),
        ({"kernel_error": 0.01}, 2),
    ],
)
def test_each_check_fails_where_it_should(changes: dict, number: int) -> None:
    passed = [check.passed for check in verdicts.check([*made(), *made(**changes)], Settings())]
    assert passed == [i != number for i in range(3)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outputs": "sum"}, "no classes to regress on"),
        ({"shots": (1,)}, "each at least 2"),
        ({"solve_examples": 1}, "give 2 or more"),
        ({"examples": 11}, "no more than that"),
        ({"seeds": 0}, "give 1 or more"),
        ({"head": "prob"}, "probe"),
        ({"shots": (30,)}, "cannot draw 60"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_a_sentence(
    changes: dict, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        execute(STUDY, settings(**changes), tmp_path / "run", progress=Progress())


def test_regressions_and_scarce_classes_are_refused() -> None:
    numbers = tiny_runs.scratch() / "shot-numbers.csv"
    lines = [f"it is a film {i},{i / 7}" for i in range(60)]
    numbers.write_text("\n".join(["text,label", *lines]))
    with pytest.raises(InputError, match="is a regression"):
        measurements._rows(settings(outputs="logits"), str(numbers), "random", 0)
    scarce = tiny_runs.scratch() / "scarce.csv"
    with scarce.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows([f"it is a film {i}", int(i % 20 == 0)] for i in range(60))
    with pytest.raises(InputError, match="fewer than 3"):
        measurements._rows(settings(), str(scarce), "random", 0)


def test_tasks_and_heads_follow_from_the_settings() -> None:
    assert Settings().task_names == ("rotten-tomatoes",)
    assert Settings(data="somewhere").task_names == ("sst2",)
    assert Settings(data="somewhere", tasks=("rte",)).task_names == ("rte",)
    assert Settings().heads == ("probe", "random")
    assert Settings(head="checkpoint").heads == ("checkpoint",)
