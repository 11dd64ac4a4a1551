from dataclasses import replace

import numpy as np
import pytest

from ntk_propulsion.errors import InputError
from ntk_propulsion.figures import Labels, Setting, heatmaps
from ntk_propulsion.figures.pairs import per_pair
from ntk_propulsion.measurements.parts import parts_of
from ntk_propulsion.theory.distances import compare_kernels
from ntk_propulsion.theory.estimate import Estimate
from tests.figures.made import HEAD, LABELS, OUTPUTS, N, assert_drawn, caption, kernel, texts

FULL, OURS = kernel(), kernel("propulsion", 0.1)


def images(figure):
    return [ax.images[0] for ax in figure.axes if ax.images and ax.images[0].get_size()[0] > 1]


def pixels(figure):
    return [np.asarray(picture.get_array()) for picture in images(figure)]


def test_three_panels_share_one_symmetric_scale():
    figure = heatmaps(FULL, OURS, LABELS)
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
    assert_drawn(figure)


def test_panels_are_the_kernel_its_scaled_rival_and_their_difference():
    full, scaled, difference, raw = pixels(
        heatmaps(FULL, OURS, LABELS, part="without_head", head=HEAD)
    )
    order = Labels.of(LABELS).order
    A, B = (parts_of(kernel, HEAD)["without_head"] for kernel in (FULL, OURS))
    scale = compare_kernels(B, A, OUTPUTS)["best_scale"]
    expected = [per_pair(K, N)[np.ix_(order, order)] for K in (A, B)]
    np.testing.assert_allclose(full, expected[0])
    np.testing.assert_allclose(scaled, scale * expected[1])
    np.testing.assert_allclose(difference, full - scaled)
    np.testing.assert_allclose(raw, abs(expected[0] - expected[1]))


def test_arrays_are_drawn_as_kernels_are():
    arrays = (FULL.matrix.numpy(), OURS.matrix)
    for a, b in zip(
        pixels(heatmaps(*arrays, LABELS, outputs=OUTPUTS)),
        pixels(heatmaps(FULL, OURS, LABELS)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b)
    figure = heatmaps(*arrays)  # one output: every row an example
    assert pixels(figure)[0].shape == FULL.matrix.shape
    assert figure.get_suptitle() == "Two kernels"
    assert "trace" not in caption(figure)


def test_estimates_are_written_with_their_intervals():
    known = {"best_scale": Estimate(8.25), "cka": Estimate(0.9, 0.8, 0.95)}
    figure = heatmaps(FULL, OURS, estimates=known)
    said = texts(figure)
    assert "CKA 0.900 [0.800, 0.950]" in said
    assert "best scale $s$ = 8.25" in said
    scaled = pixels(figure)[1]
    np.testing.assert_allclose(scaled, 8.25 * per_pair(OURS.matrix.numpy(), N))
    assert figure.pairs.scale == 8.25


def test_examples_are_sorted_by_label_with_lines_between_classes():
    first = heatmaps(FULL, OURS, Labels.of(LABELS, ["negative", "positive"])).axes[0]
    assert first.lines[0].get_ydata()[0] == 2.5
    band = first.child_axes[0]
    assert [text.get_text() for text in band.get_yticklabels()] == ["negative", "positive"]
    assert band.get_ylabel() == "examples, by label"


def test_values_of_a_regression_have_no_lines_between():
    first = heatmaps(FULL, OURS, [0.5, 3, 1, 2, 5, 4]).axes[0]
    assert not first.lines
    assert first.child_axes[0].get_ylabel() == "examples, by value"
    assert [t.get_text() for t in first.child_axes[0].get_yticklabels()] == ["0.500", "3", "5"]


def test_without_labels_examples_stay_in_their_order():
    figure = heatmaps(FULL, OURS)
    np.testing.assert_allclose(pixels(figure)[0], per_pair(FULL.matrix.numpy(), N))
    assert not figure.axes[0].child_axes
    assert_drawn(figure)


def test_it_says_what_is_drawn():
    figure = heatmaps(
        FULL, OURS, part="head", head=HEAD, point="theta0", setting=Setting("tiny $5", examples=N)
    )
    title = "Kernels of full fine-tuning and Propulsion, before training (θ₀), the head alone"
    assert figure.get_suptitle() == title
    assert caption(figure).startswith(r"Model tiny \$5, N = 6 examples. Each pixel is a pair")
    assert "the trace over its 2 by 2 outputs" in caption(figure)
    other = heatmaps(kernel("lora"), kernel("bitfit"))
    assert other.get_suptitle() == "Kernels of LoRA and BitFit"
    assert "full fine-tuning" not in texts(other)


def test_the_data_are_the_pixels_each_pair_once():
    figure = heatmaps(FULL, OURS, LABELS)
    full, scaled, difference, raw = pixels(figure)
    place = {row: i for i, row in enumerate(Labels.of(LABELS).order.tolist())}
    assert len(figure.rows) == N * (N + 1) // 2
    for row in figure.rows:
        i, j = place[row["first"]], place[row["second"]]
        for at in ((i, j), (j, i)):
            assert row["K_F"] == pytest.approx(full[at], rel=1e-5)
            assert row["K_P"] * figure.pairs.scale == pytest.approx(scaled[at], rel=1e-5)
            assert row["difference"] == pytest.approx(difference[at], rel=1e-4)
            assert abs(row["K_F"] - row["K_P"]) == pytest.approx(raw[at], rel=1e-4)
    assert figure.pairs.limit == images(figure)[0].get_clim()[1]


def test_a_page_does_not_carry_the_pairs_of_too_many_examples():
    many = np.eye(129)
    figure = heatmaps(many, many)
    assert figure.rows == []
    assert figure.pairs is None


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(InputError, match="5 labels for kernels of 6 examples"):
        heatmaps(FULL, OURS, LABELS[:5])
    for part in ("all", "without_head"):
        with pytest.raises(InputError, match="other examples"):
            heatmaps(FULL, replace(OURS, row_fingerprint="others"), part=part, head=HEAD)
