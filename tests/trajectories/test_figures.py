"""Figures of trajectories: what is drawn is what was recorded."""

from __future__ import annotations

from dataclasses import replace

import matplotlib
import numpy as np
import pytest

from ntk_propulsion.errors import InputError
from ntk_propulsion.figures.pairs import per_pair
from ntk_propulsion.figures.style import render
from ntk_propulsion.theory.distances import compare_kernels
from ntk_propulsion.trajectories import compare_trajectories
from ntk_propulsion.trajectories.figures import (
    KERNELS,
    MEASURES,
    PANELS,
    draw_between,
    draw_trajectories,
)
from tests.figures.made import assert_drawn, caption
from tests.trajectories.recorded import LABELS, recorded


def lines(ax, style):
    """What is drawn in a line style, without the thresholds' lines."""
    return [line for line in ax.lines if line.get_linestyle() == style]


def test_panels_hold_the_series_of_each_trajectory():
    full, ours = recorded("full"), recorded("propulsion")
    figure = full.plot(ours)
    assert [ax.get_title(loc="left") for ax in figure.axes] == list(PANELS.values())
    for ax, quantity in zip(figure.axes, PANELS, strict=True):
        examined = quantity in full.points[0].per_example
        for line, trajectory in zip(lines(ax, "-"), (full, ours), strict=True):
            steps, values = trajectory.series(quantity)
            values = 1 - values if quantity == "cka" else values
            first = 1 if examined else 0  # a log scale has no zero
            assert list(line.get_xdata()) == steps[first:]
            assert np.array_equal(line.get_ydata(), values[first:])
        assert len(lines(ax, "--")) == (0 if examined else 2)
        assert len(ax.collections) == (2 if examined else 0)  # bands over examples
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == [f"{n}, learning rate 0.01" for n in ("full fine-tuning", "Propulsion")]


def test_trajectories_of_one_method_are_told_apart():
    slow = replace(recorded(), settings=recorded().settings | {"learning_rate": 1e-4})
    (legend,) = draw_trajectories([recorded(), slow, recorded()]).legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert len(set(texts)) == 3


def test_bands_stay_finite_where_an_example_moved_from_zero():
    point = recorded().points[-1]
    drift = point.measures.drift_per_example.copy()
    drift[0] = np.inf
    measures = replace(point.measures, drift_per_example=drift)
    odd = replace(recorded(), points=(recorded().points[0], replace(point, measures=measures)))
    render(odd.plot())
    low, high = odd.plot().axes[0].get_ylim()
    assert np.isfinite([low, high]).all()


def test_heat_maps_show_the_changes_of_the_jacobian_sorted_by_target():
    found = recorded("propulsion")
    figure = found.plot_changes()
    panels = [ax for ax in figure.axes if ax.images]
    assert [ax.get_title(loc="left") for ax in panels] == ["at θ₀", "step 1", "step 4"]
    order = np.argsort(LABELS, kind="stable")
    start = found.points[0].own.matrix.numpy()
    pictures = [start, *(point.measures.difference for point in found.points[1:])]
    for ax, expected in zip(panels, pictures, strict=True):
        shown = np.asarray(ax.images[0].get_array())
        assert np.array_equal(shown, per_pair(expected, 4)[np.ix_(order, order)])
    limits = {ax.images[0].get_clim() for ax in panels[1:]}
    assert len(limits) == 1  # one scale
    low, high = limits.pop()
    assert low == -high < 0


def test_steps_may_be_chosen_and_those_not_recorded_are_refused():
    figure = recorded().plot_changes([4])
    assert [ax.get_title(loc="left") for ax in figure.axes if ax.images] == ["at θ₀", "step 4"]
    with pytest.raises(InputError, match="step 2 of full was not recorded"):
        recorded().plot_changes([2])
    with pytest.raises(InputError, match="nothing has changed"):
        replace(recorded(), points=recorded().points[:1]).plot_changes()
    with pytest.raises(InputError, match="no trajectory to draw"):
        draw_trajectories([])


def test_figures_are_the_same_bytes_each_time_and_leave_matplotlib_as_it_was():
    before = dict(matplotlib.rcParams)
    assert render(recorded().plot()) == render(recorded().plot())
    assert render(recorded().plot_changes()) == render(recorded().plot_changes())
    assert dict(matplotlib.rcParams) == before


def test_a_trajectory_without_targets_is_drawn_without_their_alignment():
    found = replace(recorded(), targets=None)
    figure = found.plot()
    assert not figure.axes[list(PANELS).index("target_alignment")].lines
    assert "by target" not in found.plot_changes().axes[0].get_ylabel()


def test_many_trajectories_are_told_apart_and_named_beside_the_title():
    methods = ("full", "propulsion", "lora", "adalora", "ia3", "bitfit", "layernorm")
    figure = draw_trajectories([replace(recorded(), method=method) for method in methods])
    (legend,) = figure.legends
    assert len({line.get_color() for line in legend.get_lines()}) == len(methods)
    assert_drawn(figure)


def test_figures_carry_their_numbers():
    drawn = recorded().plot(recorded("propulsion"))
    assert {row["method"] for row in drawn.rows} == {"full", "propulsion"}
    assert {row["quantity"] for row in drawn.rows} == {*PANELS}
    pixels = recorded().plot_changes().rows
    assert {row["image"] for row in pixels} == {"K_0", "change at step 1", "change at step 4"}
    assert len(pixels) == 3 * 4 * 4


def test_distances_between_methods_are_drawn_over_the_recorded_steps():
    full, ours = recorded("full"), recorded("propulsion")
    figure = draw_between(compare_trajectories(ours, full), setting="Of a tiny model.")
    assert len(figure.axes) == len(MEASURES) * len(KERNELS)
    for ax in figure.axes:
        assert [list(line.get_xdata()) for line in ax.lines] == [full.steps]
    expected = [compare_kernels(ours.at(step).own, full.at(step).full) for step in full.steps]
    drawn = figure.axes[0].lines[0].get_ydata()
    assert list(drawn) == pytest.approx([found["cka"] for found in expected])
    assert {row["quantity"] for row in figure.rows} == {*MEASURES}
    assert caption(figure).startswith("Of a tiny model.")
    assert_drawn(figure)


def test_no_distances_between_methods_are_refused():
    with pytest.raises(InputError, match="no distances between"):
        draw_between([])
