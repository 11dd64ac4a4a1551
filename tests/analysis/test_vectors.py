"""The study of scaling vectors: its statistics and likeness against direct computations."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.framework.rules import FAILS, HOLDS, NOT_TESTABLE
from analysis.framework.study import execute, failed
from analysis.vectors import likeness, measurements, verdicts
from analysis.vectors.measurements import Settings
from analysis.vectors.study import STUDY
from ntk_propulsion.propulsion import TOTAL
from ntk_propulsion.runs.progress import Progress
from tests import tiny_runs

LAYERS = {
    "bert.embeddings.word_embeddings": 16,
    "bert.encoder.layer.0.attention.self.query": 16,
    "bert.encoder.layer.0.intermediate.dense": 32,
    "bert.encoder.layer.0.output.dense": 16,
    "bert.encoder.layer.1.output.dense": 16,
    "classifier": 2,
}


def learnt(seed: int, size: float = 0.1, width: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: 1 + size * rng.normal(size=width * n) for name, n in LAYERS.items()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    other = tiny_runs.write_texts(tiny_runs.scratch() / "other.csv", n=50)
    chosen = STUDY.choose(
        True,
        model=str(tiny_runs.model()),
        tasks=(str(tiny_runs.texts()), str(other)),
        head="random",
        test_examples=10,
    )
    folder = tmp_path_factory.mktemp("vectors") / "run"
    return folder, execute(STUDY, chosen, folder, progress=Progress())


def table(folder: Path, kind: str) -> list[dict]:
    with (folder / "table.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["kind"] == kind]


def test_a_tiny_study_runs_from_end_to_end(finished: tuple[Path, dict]) -> None:
    folder, outcome = finished
    assert failed(outcome) == []
    assert [v["id"] for v in outcome["verdicts"]] == ["A4"]
    assert len(table(folder, "pair")) == 6
    assert {row["of"] for row in table(folder, "pairs")} == set(likeness.PAIRS)
    for name in ("figure", "histograms", "likeness"):
        assert (folder / f"{name}.png").stat().st_size > 10_000


def test_the_numbers_kept_are_those_that_the_table_describes(finished: tuple[Path, dict]) -> None:
    folder, _ = finished
    arrays = np.load(folder / "arrays.npz")
    totals = [row for row in table(folder, "group") if row["role"] == TOTAL]
    assert len(totals) == len(arrays.files) == 4
    for row in totals:
        z = arrays[f"{row['task']}, seed {int(float(row['seed']))}"].astype(float)
        assert len(z) == float(row["n"])
        assert z.std() > 0
        assert float(row["z_q50"]) == pytest.approx(np.median(z), abs=1e-5)
        assert float(row["gain_mean"]) == pytest.approx((z**15).mean(), rel=1e-4)


@given(st.integers(0, 1000), st.sampled_from([1, 2, 15]))
def test_statistics_are_numpys_of_the_group(seed: int, degree: int) -> None:
    z = {name: torch.tensor(each) for name, each in learnt(seed).items()}
    rows = measurements.statistics(z, degree)
    places = [(row["depth"], row["role"]) for row in rows if row["kind"] == "group"]
    assert places == [
        ("", "embedding"),
        ("0", "query"),
        ("0", "mlp"),
        ("1", "mlp"),
        ("", "head"),
        (TOTAL, TOTAL),
    ]
    mlp = torch.cat([z[name] for name in LAYERS if ".0." in name and "query" not in name]).numpy()
    row = rows[2]
    assert row["n"] == len(mlp)
    for what, values in (("z", mlp), ("gain", mlp**degree)):
        for q in (5, 25, 50, 75, 95):
            assert row[f"{what}_q{q}"] == pytest.approx(np.percentile(values, q))
        assert row[f"{what}_mean"] == pytest.approx(values.mean())
        assert row[f"{what}_std"] == pytest.approx(values.std())
        share = np.mean((values >= 0.98) & (values <= 1.02))
        assert row[f"{what}_share"] == pytest.approx(share)
    every = torch.cat(list(z.values())).numpy()
    ends = rows[-1]
    assert (ends["low"], ends["high"]) == pytest.approx((every.min(), every.max()))


def test_cosines_are_those_of_all_layers_but_the_head_end_to_end() -> None:
    runs = {("a", 0): learnt(1), ("b", 0): learnt(2)}
    row = next(iter(likeness.likeness(runs)))
    ends = [
        np.concatenate([z - 1 for name, z in each.items() if name != "classifier"])
        for each in runs.values()
    ]
    expected = ends[0] @ ends[1] / np.linalg.norm(ends[0]) / np.linalg.norm(ends[1])
    assert row["value"] == pytest.approx(expected)
    assert row["low"] <= row["value"] <= row["high"]


def test_heads_of_other_sizes_do_not_matter() -> None:
    runs = {("a", 0): learnt(1), ("b", 0): learnt(2) | {"classifier": np.ones(1)}}
    same = {("a", 0): learnt(1), ("b", 0): learnt(2)}
    assert list(likeness.likeness(runs)) == list(likeness.likeness(same))


def test_twins_count_once() -> None:
    runs = {("a", 0): learnt(1), ("b", 0): learnt(2)}
    query = "bert.encoder.layer.0.attention.self.query"
    rounding = 1e-7 * np.random.default_rng(0).normal(size=LAYERS[query])
    twins = {
        key: z | {query.replace("query", "key"): z[query] + rounding} for key, z in runs.items()
    }
    assert list(likeness.likeness(twins)) == list(likeness.likeness(runs))
    twins["a", 0][query.replace("query", "key")] = learnt(3)[query]  # a twin in one alone is none
    assert list(likeness.likeness(twins)) != list(likeness.likeness(runs))


def test_trainings_that_share_a_direction_are_more_alike_than_chance_and_others_are_not() -> None:
    shared, width = learnt(99, width=20), 20
    alike = {
        (task, 0): {n: z + learnt(seed, width=width)[n] - 1 for n, z in shared.items()}
        for seed, task in enumerate("abc")
    }
    apart = {(task, 0): learnt(seed, width=width) for seed, task in enumerate("abc")}
    (found,) = (row for row in likeness.likeness(alike) if row["kind"] == "pairs")
    assert found["value"] == pytest.approx(0.5, abs=0.1)
    assert found["low"] > found["chance_high"]
    assert found["p"] == pytest.approx(1 / (1 + likeness.SHUFFLES))
    (found,) = (row for row in likeness.likeness(apart) if row["kind"] == "pairs")
    assert abs(found["value"]) < 0.1
    assert found["p"] > 0.01


def test_layers_that_moved_as_one_are_alike_by_chance() -> None:
    drift = {name: 0.3 if "0" in name else -0.2 for name in LAYERS}
    runs = {
        (task, 0): {n: z + drift[n] for n, z in learnt(seed, 0.01, 20).items()}
        for seed, task in enumerate("ab")
    }
    row = next(iter(likeness.likeness(runs)))
    assert row["value"] > 0.99
    assert row["chance"] == pytest.approx(row["value"], abs=0.01)
    assert row["p"] > 0.01


@settings(max_examples=10)
@given(st.integers(0, 1000), st.floats(0.01, 100))
def test_a_cosine_knows_no_size(seed: int, factor: float) -> None:
    runs = {("a", 0): learnt(seed), ("b", 0): learnt(seed + 1)}
    other = {n: 1 + factor * (z - 1) for n, z in runs["b", 0].items()}
    first, second = (
        next(iter(likeness.likeness(each))) for each in (runs, {**runs, ("b", 0): other})
    )
    assert first["value"] == pytest.approx(second["value"])


def test_one_training_has_nothing_to_be_like() -> None:
    assert list(likeness.likeness({("a", 0): learnt(1)})) == []


def ranges(*shares: float) -> list[dict]:
    return [
        {"kind": "range", "task": "a", "seed": i, "value": share, "low": 0.9, "high": 1.1}
        for i, share in enumerate(shares)
    ]


@pytest.mark.parametrize(
    ("shares", "steps", "expected"),
    [((1.0, 0.99), 80, HOLDS), ((1.0, 0.98), 80, FAILS), ((1.0, 1.0), 10, NOT_TESTABLE)],
)
def test_a4_is_judged_by_the_worst_training(shares: tuple, steps: int, expected: str) -> None:
    (found,) = verdicts.judge(ranges(*shares), Settings(steps=steps))
    assert (found.id, found.verdict) == ("A4", expected)
    assert "a, seed 1" in found.measured


def counts(found: int, expected: int, error: float) -> list[dict]:
    values = {"numbers of z": found, "numbers expected": expected, "gain error": error}
    return [{"kind": kind, "value": value} for kind, value in values.items()]


def test_a_lost_number_or_another_gain_fails_its_check() -> None:
    for rows, expected in (
        (counts(10, 10, 0.0), [True, True]),
        (counts(9, 10, 0.0), [False, True]),
        (counts(10, 10, 1e-7), [True, False]),
        ([], [False, False]),
    ):
        assert [check.passed for check in verdicts.check(rows, Settings())] == expected


def test_tasks_follow_from_the_data_at_hand() -> None:
    assert Settings().task_names == ("rotten-tomatoes", "imdb")
    assert Settings(data="somewhere").task_names == ("sst2", "rte", "cola", "stsb")
    assert Settings(tasks=("imdb",)).task_names == ("imdb",)
