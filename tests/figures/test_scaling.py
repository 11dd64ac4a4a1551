import numpy as np
import pytest
import torch
from torch import nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.figures import scaling, style
from ntk_propulsion.propulsion import PropulsionConfig, wrap
from tests.figures.made import assert_drawn, caption, texts

VECTORS = {
    name: 1 + 0.004 * np.random.default_rng(i).normal(size=50)
    for i, name in enumerate(("layer.0.query", "layer.0.fc1", "layer.1.query", "classifier"))
}


def test_every_neuron_is_counted_and_the_papers_range_shaded():
    figure = scaling(VECTORS, 15, setting="Of a tiny model.")
    left, right, below = figure.axes
    assert sum(bar.get_height() for bar in right.containers[0]) == 200
    assert (left.get_yscale(), right.get_yscale()) == ("log", "log")
    said = texts(figure)
    assert "paper: [0.98, 1.02]" in said
    assert "[0.739, 1.346]" in said
    assert "degree 15" in said
    assert "std" in below.get_ylabel()
    assert caption(figure).startswith("Of a tiny model. Shaded")
    assert_drawn(figure)


def test_the_data_are_what_is_drawn():
    rows = scaling(VECTORS, 15).rows
    for panel in ("z by role", "gain"):
        assert sum(row["neurons"] for row in rows if row["panel"] == panel) == 200
    by_module = {row["module"]: row for row in rows if row["panel"] == "z by module"}
    assert list(by_module) == list(VECTORS)
    for name, z in VECTORS.items():
        assert by_module[name]["mean"] == pytest.approx(z.mean())
        assert by_module[name]["max"] == z.max()


def test_roles_look_as_in_other_figures():
    left = scaling(VECTORS, 15).axes[0]
    looks = style.role_looks(["query", "mlp", "head"])
    drawn = dict(zip(*reversed(left.get_legend_handles_labels()), strict=True))
    for role, (colour, _) in looks.items():
        assert style.matplotlib.colors.to_hex(drawn[role].get_edgecolor()) == colour.lower()


def test_untrained_vectors_and_those_of_tensors_can_be_drawn():
    figure = scaling({name: torch.ones(4) for name in VECTORS}, 15)
    assert "100.0% of 16" in texts(figure)


def test_a_model_brings_its_vectors_and_degree():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    figure = scaling(wrap(model, PropulsionConfig(degree=7)))
    assert "degree 7" in texts(figure)
    assert [row["module"] for row in figure.rows if row["panel"] == "z by module"] == ["0", "1"]


def test_without_a_degree_each_is_tried():
    figure = scaling(VECTORS)
    rows = [row for row in figure.rows if row["panel"] == "gain by degree"]
    every = np.concatenate(list(VECTORS.values()))
    for row in rows:
        assert row["gain_max"] == pytest.approx((every ** row["degree"]).max())
    ticks = [text.get_text() for text in figure.axes[1].get_xticklabels()]
    assert ticks == [str(row["degree"]) for row in rows]
    assert "degree unknown" in texts(figure)
    assert_drawn(figure)


def test_gains_beyond_all_numbers_are_said():
    figure = scaling({"a": np.full(3, 1e300)}, 15)
    assert "beyond all numbers" in texts(figure)


def test_no_vectors_are_refused():
    with pytest.raises(InputError, match="no scaling vectors"):
        scaling({}, 15)
