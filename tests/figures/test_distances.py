from dataclasses import replace

import numpy as np
import pytest

from ntk_propulsion import words
from ntk_propulsion.errors import InputError
from ntk_propulsion.figures import distances, style
from ntk_propulsion.measurements.tables import KernelDistance
from ntk_propulsion.theory.distances import compare_kernels, leading
from ntk_propulsion.theory.estimate import Estimate
from tests.figures.made import HEAD, OUTPUTS, assert_drawn, caption, kernels, texts


def known(tuning="propulsion", part="all", low=0.3, point="theta0"):
    metrics = {name: Estimate(0.5, low, None if low is None else 0.7) for name in leading()}
    return KernelDistance(point, tuning, "full", part, metrics)


def test_kernels_are_compared_with_and_without_the_head():
    given = kernels("lora")
    figure = distances(given, head=HEAD, setting="Of a tiny model.")
    rows = {(r["tuning"], r["part"], r["metric"]): r for r in figure.rows}
    assert len(rows) == 2 * 2 * len(leading())
    expected = compare_kernels(given["lora"], given["full"])
    for metric in leading():
        row = rows["lora", "all", metric]
        assert row["value"] == pytest.approx(expected[metric])
        assert row["low"] < row["value"] < row["high"] or metric == "relative_frobenius"
        assert rows["lora", "without_head", metric]["value"] != row["value"]
    assert caption(figure).startswith("Of a tiny model. No units.")
    assert_drawn(figure)


def test_each_metric_has_a_panel_that_says_what_is_best():
    figure = distances(kernels())
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "CKA (1 is best)",
        "alignment (1 is best)",
        "best-scale error (0 is best)",
        "raw error (0 is best)",
    ]
    assert not figure.legends  # the whole kernel only: nothing to tell apart


def test_the_data_are_what_is_drawn():
    figure = distances(kernels("lora"), head=HEAD)
    for ax, metric in zip(figure.axes, leading(), strict=True):
        rows = [row for row in figure.rows if row["metric"] == metric]
        dots = [line.get_xdata()[0] for line in ax.lines if len(line.get_xdata()) == 1]
        spans = [list(line.get_xdata()) for line in ax.lines if len(line.get_xdata()) == 2]
        assert dots == [row["value"] for row in rows]
        assert spans == [[row["low"], row["high"]] for row in rows]
        assert [text.get_text() for text in ax.texts] == [
            words.show(metric, row["value"]) for row in rows
        ]


def test_distances_that_are_known_are_drawn_as_they_are():
    table = [
        known("lora"),
        known(),
        known(part="without_head"),
        known(part="head"),
        known(point="full_tuned"),
    ]
    figure = distances(table)
    assert {row["low"] for row in figure.rows} == {0.3}
    assert {row["part"] for row in figure.rows} == {"all", "without_head"}
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == [
        "Propulsion\nbefore training (θ₀)",
        "Propulsion\nafter full fine-tuning",
        "LoRA\nbefore training (θ₀)",
    ]
    assert "without the head" in texts(figure)


def test_a_metric_without_interval_is_a_dot():
    figure = distances([known(low=None)])
    assert all(len(line.get_xdata()) == 1 for line in figure.axes[0].lines)


def test_a_metric_that_is_not_defined_has_no_dot():
    undefined = KernelDistance("", "lora", "full", "all", {"alignment": Estimate(0.5)})
    assert [len(ax.lines) for ax in distances([undefined]).axes] == [0, 1, 0, 0]


def test_a_tuning_has_its_own_colour():
    figure = distances(kernels("lora"))
    colours = [line.get_color() for line in figure.axes[0].lines if len(line.get_xdata()) == 1]
    looks = style.tuning_looks(["propulsion", "lora"])
    assert colours == [looks["propulsion"][0], looks["lora"][0]]


def test_arrays_and_another_reference():
    given = {name: kernel.matrix.numpy() for name, kernel in kernels("lora").items()}
    figure = distances(given, reference="lora", outputs=OUTPUTS)
    assert figure.get_suptitle() == "How far from LoRA"
    assert {row["tuning"] for row in figure.rows} == {"full", "propulsion"}
    cka = next(row["value"] for row in figure.rows if row["metric"] == "cka")
    assert cka == pytest.approx(compare_kernels(given["propulsion"], given["lora"], OUTPUTS)["cka"])
    assert np.isfinite(cka)


def test_nothing_to_compare_is_refused():
    with pytest.raises(InputError, match="reference"):
        distances(kernels(), reference="lora")
    with pytest.raises(InputError, match="no distance from 'full'"):
        distances([])


def test_kernels_of_other_examples_are_refused():
    given = kernels()
    given["propulsion"] = replace(given["propulsion"], row_fingerprint="others")
    with pytest.raises(InputError, match="other examples"):
        distances(given)
