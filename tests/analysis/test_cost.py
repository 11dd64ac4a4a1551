"""The study of costs: what it counts and weighs against what is known, verdicts on made tables."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from analysis.cost import summary, verdicts
from analysis.cost.settings import Settings
from analysis.cost.study import STUDY
from analysis.cost.summary import FEWEST
from analysis.fixtures.trainee import batch_of, mask_rows
from analysis.framework.rules import FAILS, HOLDS, NOT_TESTABLE
from analysis.framework.study import execute, failed
from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.tunings import RowColumn, count_trained, resolve_tuning
from ntk_propulsion.models.loading import load_model
from ntk_propulsion.runs.progress import Progress
from ntk_propulsion.tasks import load_task
from tests import tiny_runs
from tests.tiny_folders import make_task, save_model

pytest.importorskip("peft", reason="peft is not installed")
MB = 1e6


def settings(**changes) -> Settings:
    small = {
        "model": str(tiny_runs.model()),
        "task": str(tiny_runs.texts()),
        "length": 12,
        "batch_size": 4,
        "rounds": 1,
        "span": 0.0,
        "steps": 3,
        "every": 2,
        "probe_examples": 24,
        "test_examples": 10,
    }
    return Settings(**small | changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("cost") / "run"
    return folder, execute(STUDY, settings(), folder, progress=Progress())


def table(folder: Path, kind: str) -> list[dict]:
    with (folder / "table.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["kind"] == kind]


def loaded(kind: str = "bert", folder: str = "cost-bert"):
    path = tiny_runs.scratch() / f"{folder}-{kind}"
    if not path.exists():
        save_model(path, kind)
    task = make_task()
    return load_model(str(path), task, head="random"), task


def test_every_method_is_counted_timed_weighed_and_raced(finished: tuple[Path, dict]) -> None:
    folder, outcome = finished
    assert failed(outcome) == []
    assert [v["id"] for v in outcome["verdicts"]] == ["E3", "O2"]
    for kind in ("size", "time", "memory"):
        assert {row["method"] for row in table(folder, kind)} == set(Settings.methods)
    points = {(row["method"], float(row["steps"])) for row in table(folder, "race")}
    assert points == {(name, steps) for name in Settings.methods for steps in (0, 2, 3)}
    assert all(float(row["step_seconds"]) > 0 for row in table(folder, "time"))
    assert (folder / "figure.png").stat().st_size > 10_000


def test_counts_are_those_of_the_tunings(finished: tuple[Path, dict]) -> None:
    task = load_task(str(tiny_runs.texts()))
    model = load_model(str(tiny_runs.model()), task).model
    for row in table(finished[0], "size"):
        if row["method"] in ("lora", "adalora"):  # a kernel counts only what moves from the start
            continue
        expected = count_trained(resolve_tuning(row["method"]).bind(model), model)
        assert float(row["parameters"]) == expected, row["method"]


def test_a_mask_keeps_gradients_and_state_of_whole_weights(finished: tuple[Path, dict]) -> None:
    (row,) = (row for row in table(finished[0], "size") if row["method"] == "rowcolumn")
    layers = 4 * 16 * 16 + 2 * 16 * 32
    assert float(row["gradient_numbers"]) == 2 * layers > 4 * float(row["parameters"])
    assert float(row["gradient_bytes"]) == 4 * 2 * layers
    assert float(row["state_bytes"]) == 8 * 2 * layers + 4 * float(row["counters"])


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_under_a_mask_just_the_first_rows_or_columns_move(kind: str, axis: str) -> None:
    start, task = loaded(kind)
    tuning = RowColumn(2, axis)
    before = {name: p.detach().clone() for name, p in start.model.named_parameters()}
    trainee = settings().trainee(start.model, "bitfit")
    trainee.trained = mask_rows(start.model, tuning)
    own = [p for p in start.model.parameters() if p.requires_grad]
    trainee.optimizer = torch.optim.AdamW(own, lr=1e-2, weight_decay=0.0)
    for _ in range(3):
        trainee.step(*batch_of(start, task.train[:8]))
    moved = 0
    targets = tuning.bind(start.model).entries
    for name, p in start.model.named_parameters():
        change = p.detach() != before[name]
        moved += int(change.sum())
        if name in targets:
            transposed = kind == "gpt2"  # Conv1D keeps (in, out)
            rest = change.T if (axis == "columns") != transposed else change
            assert rest[:2].any()
            assert not rest[2:].any()
    assert 0.9 * trainee.trained < moved <= trainee.trained


def test_full_training_holds_gradients_and_state_of_all_and_propulsion_of_its_vectors(
    finished: tuple[Path, dict],
) -> None:
    full, ours = (
        next(row for row in table(finished[0], "size") if row["method"] == name)
        for name in ("full", "propulsion")
    )
    weights = 4 * float(full["model_parameters"])
    assert float(full["gradient_bytes"]) == weights
    assert float(full["state_bytes"]) == 2 * weights + 4 * float(full["counters"])
    for held in ("gradient", "state"):
        assert float(ours[f"{held}_numbers"]) < 0.5 * float(full[f"{held}_numbers"])


def race(method: str, *values: float, seed: int = 0) -> list[dict]:
    return [
        {"kind": "race", "method": method, "seed": seed, "steps": 8 * i, "seconds": 2.0 * i}
        | {"value": value}
        for i, value in enumerate(values)
    ]


def test_the_target_lies_on_the_way_to_the_best_of_full() -> None:
    rows = [*race("full", 0.5, 0.9, 0.7), *race("lora", 0.5, 0.8, 0.86), *race("ia3", 0.5, 0.85)]
    full, lora, ia3 = summary.targets(rows, 0.9)
    assert full["value"] == lora["value"] == pytest.approx(0.86)
    assert (full["steps"], full["seconds"]) == (8, 2.0)
    assert (lora["steps"], lora["seconds"], lora["best"]) == (16, 4.0, 0.86)
    assert (ia3["steps"], ia3["seconds"], ia3["best"]) == (None, None, 0.85)


def test_there_is_no_target_where_full_fine_tuning_gets_no_better() -> None:
    assert summary.targets([*race("full", 0.5, 0.5, 0.4), *race("lora", 0.5, 0.8)], 0.9) == []


def made(ours: float, theirs: float, *, rounds: int = 8, spread: float = 0.01) -> list[dict]:
    """Rounds in which a slow machine slows all methods, and each wobbles a little by itself."""
    rng = np.random.default_rng(0)
    rows = []
    for turn in range(rounds):
        busy = 1 + turn / 2
        for name in Settings.methods:
            value = (ours if name == "propulsion" else theirs) * (1 + spread * rng.normal())
            about = {"method": name, "round": turn}
            rows.append({"kind": "memory", **about, "peak_bytes": value, "rise_bytes": value})
            rows.append({"kind": "time", **about, "step_seconds": busy * value})
    return rows


@pytest.mark.parametrize(
    ("ours", "rounds", "spread", "expected"),
    [
        (0.5, 8, 0.01, [HOLDS, HOLDS]),
        (0.9, 8, 0.01, [FAILS, HOLDS]),
        (1.1, 8, 0.01, [FAILS, FAILS]),
        (1.0, 8, 0.2, [FAILS, NOT_TESTABLE]),
        (0.6, 8, 0.1, [NOT_TESTABLE, HOLDS]),
        (0.5, FEWEST - 1, 0.01, [NOT_TESTABLE, NOT_TESTABLE]),
    ],
)
def test_each_verdict_can_be_reached(
    ours: float, rounds: int, spread: float, expected: list[str]
) -> None:
    judged = verdicts.judge(made(ours, 1.0, rounds=rounds, spread=spread), Settings())
    assert [v.id for v in judged] == ["E3", "O2"]
    assert [v.verdict for v in judged] == expected


def test_nothing_measured_is_nothing_tested() -> None:
    assert [v.verdict for v in verdicts.judge([], Settings())] == [NOT_TESTABLE, NOT_TESTABLE]


def test_drifts_that_hit_all_methods_leave_a_paired_ratio_alone() -> None:
    rows = made(2.0, 1.0, spread=0.0)
    found = summary.compared(rows, "time", "step_seconds", "lora", summary.median_of_ratios)
    assert found is not None
    assert (found.low, found.value, found.high) == pytest.approx((2, 2, 2))
    apart_ = summary.compared(rows, "time", "step_seconds", "lora", summary.ratio_of_medians)
    assert apart_ is not None
    assert apart_.value == pytest.approx(2)


def test_rounds_that_only_one_method_has_are_left_out() -> None:
    rows = made(2.0, 1.0, spread=0.0)
    lost = [r for r in rows if not (r["method"] == "lora" and r["round"] == 3)]
    found = summary.compared(lost, "time", "step_seconds", "lora", summary.median_of_ratios)
    assert found is not None
    assert found.value == pytest.approx(2)


def test_a_wrong_count_fails_its_check() -> None:
    good = {"kind": "size", "method": "full", "parameters": 10, "model_parameters": 10}
    good |= {"gradient_numbers": 10, "state_numbers": 20, "moved": 9}
    assert all(check.passed for check in verdicts.check([good], Settings()))
    for wrong in ({"model_parameters": 11}, {"state_numbers": 21}, {"moved": 11}):
        passed = [check.passed for check in verdicts.check([good | wrong], Settings())]
        assert passed.count(False) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ("full", "lroa")}, "lora"),
        ({"methods": ("random_subset",)}, "unknown method"),
        ({"rounds": 0}, "--rounds 0: give 1 or more"),
        ({"every": 0}, "--every 0: give 1 or more"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    changes: dict, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        execute(STUDY, settings(**changes), tmp_path / "run", progress=Progress())
