"""Figures of an audited checkpoint: what they say, and the numbers that they carry."""

import math

import numpy as np
import pytest

from ntk_propulsion.auditing.checkpoint import Kind, ModuleDrift
from ntk_propulsion.auditing.coverage import Part
from ntk_propulsion.auditing.tables import SimilarLayers
from ntk_propulsion.report import audit_figures
from tests.auditing import samples
from tests.figures.made import assert_drawn, caption, texts


def regime(of):
    return audit_figures.regime(of, of.kernels, of.kernels.regime)


DRAW = {
    "similarity": audit_figures.similarity,
    "updates": audit_figures.updates,
    "ranks": audit_figures.ranks,
    "regime": regime,
}


@pytest.mark.parametrize("name", DRAW)
def test_a_figure_says_whose_it_is_and_nothing_lies_over_anything(name):
    figure = DRAW[name](samples.checkpoint("c$_$"))
    assert_drawn(figure)
    assert "Checkpoint c" in caption(figure)
    assert "a Propulsion of degree 5" in caption(figure)
    assert figure.rows


def test_each_pair_of_layers_is_given_once():
    figure = audit_figures.similarity(samples.checkpoint())
    assert [row["cosine"] for row in figure.rows] == [1.0, 0.5, 1.0]
    assert "2 layers of 16 outputs" in texts(figure)
    assert "mean absolute cosine 0.500;" in texts(figure)


def test_a_layer_that_did_not_move_leaves_a_gap_and_four_sizes_are_enough():
    groups = tuple(
        SimilarLayers(n, ("a", "b"), ((None, None), (None, 1.0)), None, 0.25, ())
        for n in (2, 4, 8, 16, 32)
    )
    figure = audit_figures.similarity(
        samples.checkpoint(vectors=samples.vectors(similarity=groups))
    )
    panels = [ax for ax in figure.axes if ax.images]
    assert len(panels) == audit_figures.MOST_SIZES
    assert math.isnan(figure.rows[0]["cosine"])
    assert "mean absolute cosine —" in texts(figure)


def test_updates_show_layers_with_a_share_in_the_network_s_order():
    without = samples.layer("x", share=None, reason="not finite")
    layers = (samples.layer(samples.QUERY, "query", share=0.0), without, samples.layer())
    figure = audit_figures.updates(samples.checkpoint(updates=samples.updates(layers=layers)))
    assert [row["module"] for row in figure.rows] == [samples.QUERY, samples.DENSE]
    assert figure.rows[1]["share"] == 0.667
    said = texts(figure)
    for name in ("chance", "closest rank 1", "query", "mlp"):
        assert name in said
    assert "All layers but the head: 67%" in caption(figure)
    top = figure.axes[0]
    assert top.get_ylim()[0] > 0, "a share of 0 has a place on a logarithmic axis"


def test_without_spectra_no_rank_is_drawn():
    layers = (samples.layer(share_rank_1=None),)
    figure = audit_figures.updates(samples.checkpoint(updates=samples.updates(layers=layers)))
    assert "closest rank 1" not in texts(figure)


def test_ranks_stand_beside_the_propulsion_by_what_they_cost():
    figure = audit_figures.ranks(samples.checkpoint())
    closest = [row for row in figure.rows if row["panel"] == "closest LoRA"]
    assert [(r["rank"], r["parameters"], r["share"]) for r in closest] == [
        (1, 96, 0.3),
        (2, 192, 0.55),
    ]
    (ours,) = (row for row in figure.rows if row["panel"] == "Propulsion")
    assert (ours["parameters"], ours["share"]) == (32, 0.66)
    spectrum = [r["value"] for r in figure.rows if r.get("module") == samples.DENSE]
    assert spectrum == [1.0, 0.5, 0.25]
    numbers = [text.get_text() for text in figure.axes[0].texts]
    assert numbers == ["1", "2"]


def test_a_share_that_is_not_known_is_no_point():
    figure = audit_figures.ranks(
        samples.checkpoint(updates=samples.updates(total=samples.together(share_of_weights=None)))
    )
    (ours,) = (row for row in figure.rows if row["panel"] == "Propulsion")
    assert math.isnan(ours["share"])
    assert_drawn(figure)


def test_the_regime_is_drawn_against_its_rule():
    figure = regime(samples.checkpoint())
    assert figure.get_suptitle() == "Kernel regime: holds"
    said = texts(figure)
    for name in ("holds below 0.1", "weakly below 0.5", "linearization error, all: 0.0310"):
        assert name in said
    drifts = {row["module"]: row["drift"] for row in figure.rows if "module" in row}
    assert drifts == {samples.QUERY: 0.04, samples.DENSE: 0.08}
    assert "N = 4 examples" in caption(figure)
    (ax,) = figure.axes
    drawn = [np.ravel(line.get_ydata()) for line in ax.lines]
    heights = {round(float(y[0]), 6) for y in drawn if len(y)}
    assert {0.1, 0.5, 0.031, 0.062, 0.04, 0.08} <= heights


def test_a_module_whose_drift_is_not_known_is_left_out():
    drifts = (ModuleDrift(samples.QUERY, None), ModuleDrift(samples.DENSE, 0.0))
    measured = samples.regime(drift_per_module=drifts, linearization_error=None)
    figure = regime(samples.checkpoint(kernels=samples.kernels(regime=measured)))
    assert [row["module"] for row in figure.rows if "module" in row] == [samples.DENSE]
    assert "linearization error" not in texts(figure)
    assert_drawn(figure)


def test_captions_say_what_a_figure_rests_on_and_no_share_that_the_page_does_not():
    part = samples.checkpoint(coverage=samples.coverage(layers=Part(2, 3, 800, 1000)))
    for figure in (audit_figures.updates(part), audit_figures.ranks(part)):
        said = " ".join(caption(figure).split())
        assert "Shown: 80% of the changed layers' parameters (2 of 3 layers)" in said
        assert "compared: all of the base's parameters (38 tensors)" in said
    vectors = samples.vectors(left_out=("x",), entries_left_out=32)
    said = " ".join(caption(audit_figures.similarity(samples.checkpoint(vectors=vectors))).split())
    assert "Shown: 50% of the vectors' parameters (2 of 3 layers)" in said
    huge = samples.updates(total=samples.together(relative_norm=840.83))
    other = samples.checkpoint(kind=Kind("full", "full"), updates=huge)
    said = " ".join(caption(audit_figures.updates(other)).split())
    assert "no share is said, for the update is as large as the weights" in said
    assert "67%" not in said
