from dataclasses import replace

import numpy as np
import pytest

from ntk_propulsion.report.drawing import draw_experiment, labels_of, setting_of
from tests.figures.made import LABELS, N, assert_drawn, caption, texts
from tests.report.made_experiment import POINTS, arrays, experiment

AT_THE_START = {
    "kernels_theta0_all",
    "kernels_theta0_without_head",
    "distances",
    "modules_theta0",
    "spectra",
}


@pytest.fixture(scope="module")
def whole():
    given = arrays()
    return experiment(given), given


@pytest.fixture(scope="module")
def drawn(whole):
    return draw_experiment(*whole)


def test_only_what_is_known_is_drawn():
    given = arrays(trained=False)
    assert {*draw_experiment(experiment(given), given)} == AT_THE_START


def test_a_whole_experiment_has_every_figure(drawn):
    expected = {f"kernels_{point}_{part}" for point in POINTS for part in ("all", "without_head")}
    expected |= {f"modules_{point}" for point in POINTS}
    expected |= {"distances", "spectra", "scaling", "training", "sweep", "trajectories"}
    expected |= {f"trajectories_{what}" for what in ("between", "change_full", "change_propulsion")}
    assert {*drawn} == expected


def test_every_figure_says_what_it_is_of_and_carries_its_data(drawn):
    for name, figure in drawn.items():
        assert_drawn(figure)
        assert figure.rows, name
        if name.startswith("trajectories") and name != "trajectories_between":
            continue  # a trajectory says itself what it is of
        for part in ("tiny", "22.7 M parameters", "probe head", f"N = {N} examples"):
            assert part in caption(figure), name


def test_a_figure_of_kernels_shows_the_distances_of_the_tables(whole, drawn):
    known = {(d.point, d.tuning, d.part): d.metrics for d in whole[0].results.distances}
    scale = known["full_tuned", "propulsion", "without_head"]["best_scale"].value
    assert drawn["kernels_full_tuned_without_head"].pairs.scale == scale
    shown = {(r["point"], r["tuning"], r["part"], r["metric"]) for r in drawn["distances"].rows}
    assert {line[:3] for line in shown} == {where for where in known if where[2] != "head"}


def test_spectra_show_one_control_and_say_why_half_of_two_classes_vanish(whole, drawn):
    assert {row["tuning"] for row in drawn["spectra"].rows} == {
        "full",
        "propulsion",
        "random_subset",
    }
    assert "opposite" in caption(drawn["spectra"])
    found, given = whole
    results = replace(found.results, task=replace(found.results.task, labels=()))
    other = draw_experiment(replace(found, results=results), given)
    assert "opposite" not in caption(other["spectra"])


def test_training_names_metric_rate_size_and_unit(whole, drawn):
    said = texts(drawn["training"])
    assert "accuracy 0.712 → 0.801; learning rate 0.0001, 33,792 parameters" in said
    assert "cross-entropy" in said
    found, given = whole
    task = replace(found.results.task, kind="regression", labels=())
    other = draw_experiment(replace(found, results=replace(found.results, task=task)), given)
    assert "mean squared error" in texts(other["training"])
    assert "mean squared error" in texts(other["sweep"])


def test_labels_follow_the_kernels_rows_not_the_list(whole):
    results = whole[0].results
    backwards = replace(results, examples=results.examples[::-1])
    assert labels_of(backwards).values == tuple(LABELS)
    assert labels_of(results).name(1) == "positive"
    np.testing.assert_array_equal(labels_of(backwards).order, labels_of(results).order)
    assert setting_of(results).examples == N
