import numpy as np
import pytest

from ntk_propulsion import words
from ntk_propulsion.errors import InputError
from ntk_propulsion.figures import spectra, style
from ntk_propulsion.theory.spectrum import participation_ratio
from tests.figures.made import HEAD, OUTPUTS, N, assert_drawn, caption, kernels, texts


def test_eigenvalues_over_the_trace_are_drawn_with_and_without_the_head():
    figure = spectra(kernels("random_subset"), head=HEAD, setting="Of a tiny model.")
    assert len(figure.axes) == 2
    for ax, part in zip(figure.axes, ("with the head", "without the head"), strict=True):
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
        assert ax.get_title(loc="left") == f"{part}: kernels of {N * OUTPUTS} rows"
        assert len(ax.lines) == 3
        for line in ax.lines:
            assert line.get_ydata().sum() == pytest.approx(1, abs=1e-6)
            assert (np.diff(line.get_ydata()) <= 0).all()
    assert caption(figure).startswith("Of a tiny model.")
    assert_drawn(figure)


def test_the_data_are_what_is_drawn():
    figure = spectra(kernels(), head=HEAD)
    values = [y for ax in figure.axes for line in ax.lines for y in line.get_ydata()]
    assert [row["share_of_trace"] for row in figure.rows] == pytest.approx(values, rel=1e-5)
    assert {row["part"] for row in figure.rows} == {"all", "without_head"}


def test_effective_ranks_stand_in_the_legend_below_the_lines():
    given = kernels()
    figure = spectra(given)
    rank = words.number(participation_ratio(given["full"]))
    assert f"full fine-tuning: {rank}" in texts(figure)
    figure.draw_without_rendering()
    (ax,) = figure.axes
    assert not ax.get_legend().get_window_extent().overlaps(ax.get_window_extent())


def test_points_are_told_apart_by_their_dashes_and_tunings_by_their_colours():
    given = kernels()
    (ax,) = spectra({"theta0": given, "full_tuned": given}).axes
    looks = style.tuning_looks(given)
    assert [(line.get_color(), line.get_linestyle()) for line in ax.lines] == [
        (looks[tuning][0], dash) for dash in ("-", "--") for tuning in given
    ]
    assert "Propulsion, after full fine-tuning: " in ax.get_legend().get_texts()[3].get_text()


def test_a_kernel_that_is_zero_is_left_out():
    zero = np.zeros((4, 4))
    (ax,) = spectra({"full": np.eye(4), "lora": zero}).axes
    assert len(ax.lines) == 1
    with pytest.raises(InputError, match="no kernel"):
        spectra({"lora": zero})


def test_rounding_is_left_out():
    (ax,) = spectra({"full": np.diag([1.0, 1e-3, 1e-12])}).axes
    assert len(ax.lines[0].get_ydata()) == 2
