import copy

import numpy as np
import pytest

from ntk_propulsion.figures.before import heatmaps
from ntk_propulsion.figures.before.heatmaps import example_order, kernel_heatmaps, per_pair


def images(figure):
    return [ax.images[0] for ax in figure.axes if ax.images and ax.images[0].get_size()[0] > 1]


@pytest.fixture(params=["classification", "regression"])
def experiment(request):
    return request.getfixturevalue(request.param)


def test_the_trace_over_outputs_is_taken_per_pair():
    kernel = np.arange(36.0).reshape(6, 6)
    expected = [
        [kernel[2 * i, 2 * j] + kernel[2 * i + 1, 2 * j + 1] for j in range(3)] for i in range(3)
    ]
    assert per_pair(kernel, 3).tolist() == expected
    assert (per_pair(kernel, 6) == kernel).all()


def test_three_panels_share_one_symmetric_scale(experiment):
    figure = kernel_heatmaps(experiment.results, experiment.kernels)
    *panels, raw = images(figure)
    limits = {picture.get_clim() for picture in panels}
    assert len(panels) == 3
    assert len(limits) == 1
    low, high = limits.pop()
    assert low == -high < 0
    assert raw.get_clim()[0] == 0
    label = next(ax.get_xlabel() for ax in figure.axes if "one scale" in ax.get_xlabel())
    assert f"±{high:.0f}" in label
    assert "output² / parameter²" in label


def test_panels_are_the_kernel_its_scaled_rival_and_their_difference(experiment):
    figure = kernel_heatmaps(experiment.results, experiment.kernels, part="without_head")
    full, scaled, difference, raw = (np.asarray(p.get_array()) for p in images(figure))
    order = example_order(experiment.results)
    given = {
        t: per_pair(experiment.kernels[f"theta0/{t}/without_head"], 24)[np.ix_(order, order)]
        for t in ("full", "propulsion")
    }
    row = experiment.results["distances"][1]
    assert row["part"] == "without_head"
    scale = row["metrics"]["best_scale"]["value"]
    np.testing.assert_allclose(full, given["full"])
    np.testing.assert_allclose(scaled, scale * given["propulsion"])
    np.testing.assert_allclose(difference, full - scaled)
    np.testing.assert_allclose(raw, abs(given["full"] - given["propulsion"]))
    titles = " ".join(ax.get_title(loc="left") for ax in figure.axes)
    assert f"{scale:.1f}" in titles


def test_examples_are_sorted_by_label_with_lines_between_classes(classification):
    results = classification.results
    labels = [results["examples"][i]["label"] for i in example_order(results)]
    assert labels == sorted(labels)
    figure = kernel_heatmaps(results, classification.kernels)
    assert figure.axes[0].lines[0].get_ydata()[0] == 11.5
    names = [t.get_text() for t in figure.axes[0].child_axes[0].get_yticklabels()]
    assert names == ["negative", "positive"]


def test_rows_count_not_the_order_of_the_list(classification):
    results = copy.deepcopy(classification.results)
    results["examples"].reverse()
    assert (example_order(results) == example_order(classification.results)).all()


def test_it_says_what_a_pixel_is(classification, regression):
    said = kernel_heatmaps(classification.results, classification.kernels).get_supxlabel()
    assert "the trace over its 2 by 2 outputs" in said.replace("\n", " ")
    assert "N = 24" in said
    assert "trace" not in kernel_heatmaps(regression.results, regression.kernels).get_supxlabel()


def test_without_a_measured_scale_the_best_one_is_fitted(classification):
    results = {**classification.results, "distances": []}
    full, scaled, difference, _ = (
        np.asarray(p.get_array()) for p in images(kernel_heatmaps(results, classification.kernels))
    )
    assert abs((difference * scaled).sum()) < 1e-9 * (full * full).sum()


def test_the_data_are_the_pixels_each_pair_once(experiment):
    figure = kernel_heatmaps(experiment.results, experiment.kernels)
    full, scaled, difference, raw = (np.asarray(p.get_array()) for p in images(figure))
    place = {row: i for i, row in enumerate(example_order(experiment.results).tolist())}
    assert len(figure.rows) == 24 * 25 // 2
    for row in figure.rows:
        for at in (
            (place[row["first"]], place[row["second"]]),
            (
                place[row["second"]],
                place[row["first"]],
            ),
        ):
            assert row["K_F"] == pytest.approx(full[at], rel=1e-5)
            assert row["K_P"] * figure.pairs.scale == pytest.approx(scaled[at], rel=1e-5)
            assert row["difference"] == pytest.approx(difference[at], rel=1e-5)
            assert abs(row["K_F"] - row["K_P"]) == pytest.approx(raw[at], rel=1e-4)
    assert figure.pairs.limit == images(figure)[0].get_clim()[1]


def test_a_page_does_not_carry_the_pairs_of_too_many_examples(classification, monkeypatch):
    monkeypatch.setattr(heatmaps, "MOST_PAIRS", 23)
    figure = kernel_heatmaps(classification.results, classification.kernels)
    assert figure.rows == []
    assert figure.pairs is None
