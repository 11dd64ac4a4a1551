import math

import numpy as np
import pytest

from analysis import grid, initialisation, layers, pooling, position
from analysis.rules import FAILS, HOLDS, NOT_TESTABLE
from analysis.study import execute, failed
from analysis.subject import subject
from ntk_propulsion.kernels.ntk import empirical_ntk
from ntk_propulsion.kernels.tunings import Propulsion
from ntk_propulsion.progress import Progress
from ntk_propulsion.propulsion import PropulsionConfig
from ntk_propulsion.theory.distances import compare_kernels
from tests import tiny_runs

STUDIES = (initialisation.STUDY, position.STUDY, layers.STUDY, pooling.STUDY)


def quick(study, **changes):
    tiny = {
        "model": str(tiny_runs.model()),
        "task": str(tiny_runs.texts()),
        "test_examples": 10,
        "head": "random",
    }
    return study.choose(True, **{**tiny, **changes})


def made(**metrics):
    """Return a grid's table: each configuration's metric by seed, distances that fall with it."""
    return [
        {
            "configuration": name.replace("_", " "),
            "seed": seed,
            "task": "a",
            "metric_name": "accuracy",
            "metric": value,
            "metric_before": 0.5,
            "without_head_best_scale_error": 1 - np.mean([v or 0 for v in values]),
            "without_head_unbiased_cka": value,
        }
        for name, values in metrics.items()
        for seed, value in enumerate(values)
    ]


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_a_grid_runs_from_end_to_end(study, tmp_path):
    outcome = execute(study, quick(study), tmp_path / "a", progress=Progress())
    assert failed(outcome) == []
    assert (tmp_path / "a" / "figure.png").is_file()
    ids = {verdict["id"] for verdict in outcome["verdicts"]}
    assert ids > {"D1"}


def test_a_row_is_what_a_direct_computation_gives():
    settings = quick(position.STUDY)
    at = subject(settings, 0)
    (row,) = grid._Before(at).rows("query", PropulsionConfig(15, ("query",)))
    kernels = empirical_ntk(at.model, at.batch, ["full", Propulsion(15, "query")])
    expected = compare_kernels(kernels["propulsion"], kernels["full"], at.outputs)
    assert row["all_best_scale_error"] == pytest.approx(expected["best_scale_error"], rel=1e-4)
    assert row["trace"] == pytest.approx(float(kernels["propulsion"].matrix.trace()), rel=1e-4)
    again, _ = at.tune(PropulsionConfig(15, ("query",)), settings.learning_rate)
    assert row["metric"] == at.metric(again)


def test_a_diverged_training_is_a_row_without_a_metric():
    settings = quick(position.STUDY, learning_rate=1e20)
    (row,) = grid._Before(subject(settings, 0)).rows("all", PropulsionConfig(15))
    assert row["metric"] is None
    assert "learning rate" in row["note"]
    values = grid.by_configuration([row], "metric")["all"]
    assert math.isnan(values[0])


def test_a_start_that_kills_the_model_has_no_kernel_and_loses_no_row():
    settings = quick(initialisation.STUDY)
    (row,) = grid._Before(subject(settings, 0)).rows("0", PropulsionConfig(15, initialisation=0.0))
    assert row["trace"] == 0
    assert row["all_best_scale_error"] is None


def test_differences_are_paired_over_the_seeds_that_both_finished():
    rows = made(a=[0.9, 0.8, None], b=[0.5, 0.5, 0.5])
    found = grid.differences(rows, "a", ["b"])["b"]
    assert found.value == pytest.approx(0.35)


def test_a3_is_about_one_against_every_other_start():
    settings = initialisation.STUDY.settings()
    clear = made(**{"1": [0.8, 0.81, 0.8], "0.5": [0.5, 0.51, 0.5], "1 +- 0.01": [0.7, 0.7, 0.71]})
    verdicts = {v.id: v.verdict for v in initialisation.judge(clear, settings)}
    assert verdicts["A3"] == HOLDS
    assert verdicts["O1"] == FAILS
    beaten = made(**{"1": [0.5, 0.51, 0.5], "0.5": [0.8, 0.8, 0.8]})
    verdicts = {v.id: v.verdict for v in initialisation.judge(beaten, settings)}
    assert (verdicts["A3"], verdicts["O1"]) == (FAILS, HOLDS)
    assert initialisation.judge(clear[::3], settings)[0].verdict == NOT_TESTABLE


def test_a2_needs_every_comparison():
    settings = position.STUDY.settings()
    order = {"all": 0.9, "query+key+value": 0.8, "query": 0.7, "value": 0.75, "embedding": 0.5}
    rows = made(**{name: [v, v + 0.01, v - 0.01] for name, v in order.items()})
    assert position.judge(rows, settings)[0].verdict == HOLDS
    without = [row for row in rows if row["configuration"] != "embedding"]
    assert position.judge(without, settings)[0].verdict == NOT_TESTABLE
    order["embedding"] = 0.95
    rows = made(**{name: [v, v + 0.01, v - 0.01] for name, v in order.items()})
    assert position.judge(rows, settings)[0].verdict == FAILS


def test_a6_is_an_equivalence_of_few_layers_with_all():
    settings = layers.STUDY.settings()
    same = made(**{"1_first": [0.8, 0.801, 0.8], "all_6": [0.8, 0.8, 0.801]})
    assert layers.judge(same, settings)[0].verdict == HOLDS
    worse = made(**{"1_first": [0.6, 0.601, 0.6], "all_6": [0.8, 0.8, 0.801]})
    assert layers.judge(worse, settings)[0].verdict == FAILS
    noisy = made(**{"1_first": [0.6, 0.9, 0.75], "all_6": [0.8, 0.8, 0.801]})
    assert layers.judge(noisy, settings)[0].verdict == NOT_TESTABLE


@pytest.mark.parametrize(
    ("blocks", "count", "which", "expected"),
    [
        (6, 2, "first", [0, 1]),
        (6, 2, "last", [4, 5]),
        (6, 2, "spread", [1, 4]),
        (6, 3, "spread", [1, 3, 5]),
        (12, 1, "spread", [6]),
    ],
)
def test_blocks_are_chosen_as_their_names_say(blocks, count, which, expected):
    assert layers.chosen_blocks(blocks, count, which) == expected


def test_a5_compares_poolings_by_their_mean_over_numbers_of_vectors():
    settings = pooling.STUDY.settings(vectors=(2, 4))
    rows = made(
        **{
            f"{name}_of_{p}": [value, value + 0.01, value - 0.01]
            for name, value in (("average", 0.8), ("max", 0.7), ("min", 0.7), ("l2", 0.79))
            for p in (2, 4)
        }
    )
    assert pooling.judge(rows, settings)[0].verdict == HOLDS


def test_a_wrong_pooling_factor_is_found():
    settings = pooling.STUDY.settings(vectors=(2,))
    rows = [{"configuration": pooling.ONE, "seed": 0, "trace": 1.0}]
    rows += [
        {
            "configuration": f"{name} of 2",
            "seed": 0,
            "trace": 0.5 if name in ("average", "l2") else 1,
        }
        for name in pooling.POOLINGS
    ]
    assert pooling.check(rows, settings)[0].passed
    rows[1]["trace"] = 0.25
    assert not pooling.check(rows, settings)[0].passed
