"""The study of domain shift: verdicts on made tables, numbers against direct computations."""

from __future__ import annotations

import csv
import functools
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from analysis.fixtures.drops import Predictor, leading, trained
from analysis.fixtures.subject import Subject
from analysis.framework.rules import FAILS, HOLDS, NOT_TESTABLE
from analysis.framework.study import execute
from analysis.shift import measurements, verdicts
from analysis.shift.measurements import VARIANTS, Settings
from analysis.shift.study import STUDY
from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.reference import reference_jacobian
from ntk_propulsion.models.heads import head_modules
from ntk_propulsion.models.tokens import encode
from ntk_propulsion.runs.progress import Progress
from ntk_propulsion.tasks import draw, load_task
from ntk_propulsion.training.finetuning import TrainingDiverged
from tests import tiny_runs
from tests.tiny_folders import WORDS, save_model


def write(name: str, seed: int, *, n: int = 70, labels: int = 2) -> str:
    """Write a domain of random texts, long enough that two do not share phrases."""
    generator = random.Random(seed)
    path = tiny_runs.scratch() / f"{name}.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for i in range(n):
            length = 8 + int(7 * generator.random())
            words = [WORDS[int(len(WORDS) * generator.random())] for _ in range(length)]
            writer.writerow([" ".join(words), i % labels])
    return str(path)


@functools.cache
def domains() -> tuple[str, str]:
    return write("plays", 1), write("books", 2)


@functools.cache
def lively() -> str:
    """A tiny BERT whose outputs differ between texts, so that float32 kernels are no constant."""
    return str(save_model(tiny_runs.scratch() / "lively", initializer_range=0.4))


def settings(**changes) -> Settings:
    small = {
        "model": lively(),
        "domains": domains(),
        "examples": 6,
        "seeds": 2,
        "steps": 3,
        "batch_size": 4,
        "probe_examples": 24,
        "train_examples": 12,
        "test_examples": 10,
        "max_length": 12,
        "memory": "200MiB",
    }
    return Settings(**small | changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("shift")
    return folder, execute(STUDY, settings(seeds=1), folder / "run", progress=Progress())


def table(folder: Path) -> list[dict]:
    with (folder / "run" / "table.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_source_meets_every_target(finished: tuple[Path, dict]) -> None:
    folder, outcome = finished
    rows = table(folder)
    expected = {("plays", t) for t in ("plays", "books", *VARIANTS)}
    expected |= {("books", t) for t in ("books", "plays")}
    for seed in ("0", "all"):
        found = {(r["source"], r["target"]) for r in rows if r["seed"] == seed}
        assert found == expected
    accuracies = [r for r in rows if r["quantity"] == "accuracy" and r["seed"] == "0"]
    methods = {(r["method"], r["tuning"], r["part"], r["offset"]) for r in accuracies}
    kernels = {
        Predictor("kernel", tuning, part, offset)
        for tuning in ("full", "propulsion", "bitfit", "random_subset")
        for part in ("all", "without_head")
        for offset in ("0", "f0")
    }
    assert methods == {*kernels, trained("full"), trained("propulsion"), Predictor("start")}
    assert all(check["passed"] for check in outcome["checks"])
    assert max(float(r["value"]) for r in rows if r["quantity"] == "most_tokens") == 12
    assert (folder / "run" / "figure.png").stat().st_size > 10_000


def test_the_verdict_rests_on_the_regression_without_head_from_zero(
    finished: tuple[Path, dict],
) -> None:
    folder, outcome = finished
    (o3,) = outcome["verdicts"]
    rows = [
        r
        for r in table(folder)
        if r["quantity"] == "excess_drop"
        and (r["method"], r["tuning"], r["part"], r["offset"]) == leading("propulsion")
    ]
    assert len(rows) == 6
    assert all(f"{r['source']} to {r['target']}" in o3["measured"] for r in rows)
    assert "without the head, from f = 0" in o3["about"]


def test_a_cell_agrees_with_jacobians_held_whole() -> None:
    source = measurements._Source(settings(), 0, domains()[0])
    rows = source.rows("scrambled")
    model, examples = source.at.model, source.tests("scrambled")[0]
    tests = encode(source.loaded, examples).batch
    head = head_modules(model)
    inner = [n for n, _ in model.named_parameters() if n.rpartition(".")[0] not in head]
    assert 0 < len(inner) < len(list(model.parameters()))
    X, Z = (
        torch.cat(list(reference_jacobian(model, b, "margin", inner).values()), 1).detach().double()
        for b in (source.batch, tests)
    )
    y = np.array([1.0 if e.label else -1.0 for e in source.fitted])
    truth = np.array([e.label for e in examples])
    X, Z = X.numpy(), Z.numpy()
    K = X @ X.T
    for offset in ("0", "f0"):
        (row,) = (
            r
            for r in rows
            if r["quantity"] == "accuracy"
            and (r["method"], r["tuning"], r["part"]) == ("kernel", "full", "without_head")
            and r["offset"] == offset
        )
        with torch.no_grad():
            f, g = (
                (logits[:, 1] - logits[:, 0]).double().numpy() * (offset == "f0")
                for logits in (model(**b).logits for b in (source.batch, tests))
            )
        shifted = K + row["ridge"] * np.linalg.norm(K, 2) * np.eye(len(K))
        predicted = g + Z @ X.T @ np.linalg.solve(shifted, y - f)
        sure = np.abs(predicted) > 1e-3 * np.abs(predicted).max()
        assert sure.sum() >= 8
        expected = (predicted > 0).astype(int) == truth
        assert np.array_equal(np.array(row["correct"])[sure], expected[sure])


def test_pieces_of_a_cross_kernel_make_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    source = measurements._Source(settings(), 0, domains()[0])
    batch = encode(source.loaded, source.tests(domains()[0])[0]).batch
    (whole,) = source._cross(batch)
    monkeypatch.setattr(measurements, "CHUNK", 4)
    pieces = source._cross(batch)
    assert len(pieces) == 3
    for name, parts in whole.items():
        for part, K in parts.items():
            joined = np.concatenate([piece[name][part] for piece in pieces])
            np.testing.assert_allclose(joined, K, rtol=1e-4, atol=1e-5 * np.abs(K).max())


def test_without_head_the_logits_kernel_is_the_margins_four_times() -> None:
    found = {}
    for outputs in ("margin", "logits"):
        source = measurements._Source(settings(outputs=outputs), 0, domains()[0])
        found[outputs] = source.kernels
    for name, parts in found["margin"].items():
        K = np.kron(parts["without_head"], [[0.25, -0.25], [-0.25, 0.25]])
        other = found["logits"][name]["without_head"]
        np.testing.assert_allclose(other, K, atol=1e-5 * np.abs(K).max())


def test_texts_that_occur_in_the_source_are_dropped_and_counted() -> None:
    first, second = domains()
    source = measurements._Source(settings(), 0, first)
    copies = [[e.text.upper(), e.label] for e in source.fitted]
    mixed = tiny_runs.scratch() / "mixed.csv"
    with Path(second).open() as file, mixed.open("w", newline="") as out:
        fresh = list(csv.reader(file))
        csv.writer(out).writerows([*fresh, *copies])
    rows = {r["quantity"]: r for r in source.rows(str(mixed))}
    task = load_task(str(mixed))
    drawn = draw(task, min(20, len(task.test)))  # twice as many as the study tests on
    copied = sum(e.index >= len(fresh) - 1 for e in drawn)
    assert copied > 0
    assert rows["dropped_texts"]["value"] == copied
    assert rows["known_texts"]["value"] == 0
    same = tiny_runs.scratch() / "same.csv"
    same.write_text(Path(first).read_text())
    source.at.materials.train = [*source.task.train, *source.task.test]
    with pytest.raises(InputError, match="share phrases"):
        source.rows(str(same))


def test_a_training_that_diverges_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    tune = Subject.tune

    def diverge(self, config, rate):
        if config is not None:
            raise TrainingDiverged("loss is NaN at step 2")
        return tune(self, config, rate)

    monkeypatch.setattr(Subject, "tune", diverge)
    source = measurements._Source(settings(), 0, domains()[0])
    rows = [row for target in domains() for row in source.rows(target)]
    lost = [row for row in rows if row["quantity"] == "diverged"]
    assert [row["tuning"] for row in lost] == ["propulsion", "propulsion"]
    assert lost[0]["note"] == "loss is NaN at step 2"
    found = {(r["method"], r["tuning"]) for r in rows if r["quantity"] == "accuracy"}
    assert ("trained", "full") in found
    assert ("trained", "propulsion") not in found


def excess(target, low, value, high):
    about = {"seed": "all", "source": "home", "target": target, "quantity": "excess_drop"}
    return about | leading("propulsion")._asdict() | {"value": value, "low": low, "high": high}


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ((-0.04, 0.0, 0.04), HOLDS),
        ((0.06, 0.1, 0.14), FAILS),
        ((-0.02, 0.1, 0.14), NOT_TESTABLE),
        ((-0.14, -0.1, -0.06), NOT_TESTABLE),  # a smaller drop than K_F's is not what O3 denies
    ],
)
def test_o3_is_judged_by_the_worst_target(second: tuple, expected: str) -> None:
    rows = [excess("near", -0.01, 0.0, 0.01), excess("far", *second)]
    (found,) = verdicts.judge(rows, Settings())
    assert (found.id, found.verdict) == ("O3", expected)


def test_nothing_measured_is_nothing_tested() -> None:
    (found,) = verdicts.judge([], Settings())
    assert found.verdict == NOT_TESTABLE


def test_a_longer_text_or_a_known_one_fails_the_checks() -> None:
    def row(quantity, target, value):
        return {"quantity": quantity, "source": "a", "target": target, "value": value}

    good = [row("most_tokens", "a", 64), row("known_texts", "a", 3), row("known_texts", "b", 0)]
    assert all(check.passed for check in verdicts.check(good, Settings()))
    long, _ = verdicts.check([*good, row("most_tokens", "b", 65)], Settings())
    _, known = verdicts.check([*good, row("known_texts", "c", 1)], Settings())
    assert not long.passed
    assert not known.passed


def test_sst2_is_a_source_where_there_is_glue_data_and_never_a_target() -> None:
    chosen = Settings(data="somewhere")
    assert chosen.sources == ("rotten-tomatoes", "imdb", "sst2")
    assert Settings().sources == ("rotten-tomatoes", "imdb")
    assert chosen.targets("sst2") == ("sst2", "rotten-tomatoes", "imdb")
    assert chosen.targets("imdb") == ("imdb", "rotten-tomatoes")
    assert chosen.targets("rotten-tomatoes") == ("rotten-tomatoes", "imdb", *VARIANTS)


def test_sst2_phrases_inside_rotten_tomatoes_texts_drop_them(glue: Path) -> None:
    chosen = settings(
        domains=("rotten-tomatoes",), data=str(glue), test_examples=60, probe_examples=600
    )
    source = measurements._Source(chosen, 0, "sst2")
    found, dropped = source.tests("rotten-tomatoes")
    assert dropped > 0
    assert 2 <= len(found) <= 60
    texts = [measurements.words_of(e) for e in found]
    assert not any(measurements.words_of(e) in text for e in source._learnt for text in texts)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outputs": "sum"}, "no classes to regress on"),
        ({"domains": ("a/x.csv", "b/x.csv")}, "distinct names"),
        ({"domains": ("typos", "imdb")}, "distinct names"),
        ({"seeds": 0}, "give 1 or more"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_a_sentence(
    changes: dict, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        execute(STUDY, settings(**changes), tmp_path / "run", progress=Progress())


def test_domains_of_other_classes_or_of_numbers_are_refused() -> None:
    three = write("three", 5, labels=3)
    source = measurements._Source(settings(), 0, domains()[0])
    with pytest.raises(InputError, match="have other classes"):
        source.tests(three)
    numbers = tiny_runs.scratch() / "numbers.csv"
    lines = [f"it is a film {i},{i / 7}" for i in range(60)]
    numbers.write_text("\n".join(["text,label", *lines]))
    with pytest.raises(InputError, match="is a regression"):
        _ = measurements._Source(settings(outputs="logits"), 0, str(numbers)).at


def test_the_quick_settings_are_settings() -> None:
    assert STUDY.choose(True).train_examples < STUDY.choose(False).train_examples
    assert json.loads(json.dumps(STUDY.quick)) == dict(STUDY.quick)
