import copy

import numpy as np
import pytest

from ntk_propulsion import words
from ntk_propulsion.figures import style
from ntk_propulsion.figures.before import experiment as figures


def texts(figure):
    found = [figure.get_suptitle(), figure.get_supxlabel()]
    for ax in figure.axes:
        found += [ax.get_title(loc="left"), ax.get_xlabel(), ax.get_ylabel()]
        found += [t.get_text() for t in ax.texts]
        legend = ax.get_legend()
        found += [t.get_text() for t in legend.get_texts()] if legend else []
    for legend in figure.legends:
        found += [t.get_text() for t in legend.get_texts()]
    return "\n".join(found)


def assert_says_what_it_shows(figure):
    caption = figure.get_supxlabel().replace("\n", " ")
    for part in ("tiny-bert", "22.7 M parameters", "probe head", "N = 24 examples"):
        assert part in caption
    assert style.render(figure).startswith(b"\x89PNG")


def test_module_distances_show_every_module_in_the_networks_order(classification):
    figure = figures.module_distances(classification.results)
    assert_says_what_it_shows(figure)
    alignment, cka, share = figure.axes
    rows = classification.results["per_module"]
    drawn = {line.get_xdata()[0]: line.get_ydata()[0] for line in alignment.lines}
    assert drawn == {i: r["alignment"] for i, r in enumerate(rows) if r["alignment"] is not None}
    assert "alignment" in alignment.get_ylabel()
    assert "CKA" in cka.get_ylabel()
    assert share.get_yscale() == "log"
    assert [t.get_text() for t in share.get_xticklabels()] == [
        "embedding", "layer 0", "layer 1", "layer 2", "pooler",
    ]  # fmt: skip
    said = texts(figure)
    worst = min((r for r in rows if r["alignment"]), key=lambda r: r["alignment"])
    assert f"1  {worst['module']}" in said
    assert "5 modules that Propulsion" in said.replace("\n", " ")
    assert "attention output" in said


def test_spectra_sum_to_one_and_name_effective_ranks(classification):
    figure = figures.spectra(classification.results, classification.kernels)
    assert_says_what_it_shows(figure)
    assert len(figure.axes) == 2
    for ax in figure.axes:
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
        assert len(ax.lines) == 6
        for line in ax.lines:
            assert line.get_ydata().sum() == pytest.approx(1, abs=1e-6)
            assert (np.diff(line.get_ydata()) <= 0).all()
    rank = classification.results["kernels"][1]["effective_rank"]
    assert f"full fine-tuning, before training (θ₀): {rank:.2f}" in texts(figure)


def test_spectra_show_one_control_and_say_why_half_of_two_classes_vanish(
    classification, regression
):
    kernels = dict(classification.kernels)
    for tuning in ("random_subset", "lora", "bitfit"):
        kernels[f"theta0/{tuning}/all"] = kernels["theta0/full/all"]
    figure = figures.spectra(classification.results, kernels)
    assert [len(ax.lines) for ax in figure.axes] == [7, 6]
    assert "random subset" in texts(figure)
    assert "LoRA" not in texts(figure)
    assert "opposite" in figure.get_supxlabel()
    assert "opposite" not in figures.spectra(regression.results, regression.kernels).get_supxlabel()


def test_spectra_leave_out_a_kernel_that_is_zero(classification):
    kernels = {k: v for k, v in classification.kernels.items() if k.startswith("theta0")}
    kernels["theta0/head/without_head"] = np.zeros((48, 48))
    figure = figures.spectra(classification.results, kernels)
    assert [len(ax.lines) for ax in figure.axes] == [2, 2]


def test_histogram_counts_every_neuron_and_shades_the_papers_range(classification):
    figure = figures.scaling_histogram(classification.results, classification.scaling, 15)
    assert_says_what_it_shows(figure)
    left, right, below = figure.axes
    total = sum(z.size for z in classification.scaling.values())
    assert sum(bar.get_height() for bar in right.containers[0]) == total
    assert (left.get_yscale(), right.get_yscale()) == ("log", "log")
    said = texts(figure)
    assert "paper: [0.98, 1.02]" in said
    assert "[0.739, 1.346]" in said
    assert "degree 15" in said
    assert "std" in below.get_ylabel()


def test_untrained_scaling_vectors_can_be_drawn(classification):
    ones = {name: np.ones(4) for name in classification.scaling}
    figure = figures.scaling_histogram(classification.results, ones, 15)
    assert "100.0% of 80" in texts(figure)


def test_training_names_metric_rate_and_unit(classification, regression):
    figure = figures.training_curves(classification.results)
    assert_says_what_it_shows(figure)
    said = texts(figure)
    assert "accuracy 0.712 → 0.801" in said
    assert "33,792 parameters" in said
    assert "cross-entropy" in said
    assert "mean squared error" in texts(figures.training_curves(regression.results))


def test_a_short_training_is_drawn_as_it_is(classification):
    results = copy.deepcopy(classification.results)
    results["training"][0]["losses"] = [[1, 0.7], [2, 0.6]]
    results["training"][1]["losses"] = []
    (ax,) = figures.training_curves(results).axes
    assert ax.lines[0].get_ydata().tolist() == [0.7, 0.6]


def test_distance_summary_draws_intervals_with_and_without_the_head(classification):
    figure = figures.distance_summary(classification.results)
    assert_says_what_it_shows(figure)
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == [
        "CKA (1 is best)", "alignment (1 is best)",
        "best-scale error (0 is best)", "raw error (0 is best)",
    ]  # fmt: skip
    first = classification.results["distances"][0]["metrics"]["cka"]
    spans = [line.get_xdata() for line in figure.axes[0].lines if len(line.get_xdata()) == 2]
    assert len(spans) == 6
    assert list(spans[0]) == [first["low"], first["high"]]
    assert f"{first['value']:.3f}" in texts(figure)


def test_a_metric_without_interval_is_a_dot(classification):
    results = copy.deepcopy(classification.results)
    for d in results["distances"]:
        for ends in d["metrics"].values():
            ends["low"] = ends["high"] = None
    figure = figures.distance_summary(results)
    assert all(len(line.get_xdata()) == 1 for line in figure.axes[0].lines)


def test_every_figure_carries_the_rows_that_it_draws(classification):
    results = classification.results
    modules = figures.module_distances(results)
    drawn = {line.get_xdata()[0]: line.get_ydata()[0] for line in modules.axes[0].lines}
    assert drawn == {
        i: r["alignment"] for i, r in enumerate(modules.rows) if r["alignment"] is not None
    }
    spectra = figures.spectra(results, classification.kernels)
    values = [y for ax in spectra.axes for line in ax.lines for y in line.get_ydata()]
    assert [r["share_of_trace"] for r in spectra.rows] == pytest.approx(values, rel=1e-5)
    training = figures.training_curves(results)
    curves = {len(line.get_xdata()): line.get_ydata() for line in training.axes[0].lines}
    mean = [r["running_mean"] for r in training.rows if "running_mean" in r]
    assert mean[-len(curves[56]) :] == list(curves[56])
    assert [r["loss"] for r in training.rows][-60:] == list(curves[60])
    distances = figures.distance_summary(results)
    dots = [line for ax in distances.axes for line in ax.lines if len(line.get_xdata()) == 1]
    assert [r["value"] for r in distances.rows] == pytest.approx(
        [
            line.get_xdata()[0]
            for name in ("cka", "alignment", "best_scale_error", "relative_frobenius")
            for line in dots
            if line.axes.get_title(loc="left").startswith(words.metric_label(name))
        ]
    )
    histogram = figures.scaling_histogram(results, classification.scaling, 15)
    total = sum(z.size for z in classification.scaling.values())
    for panel in ("z by role", "gain"):
        bars = [r["neurons"] for r in histogram.rows if r["panel"] == panel]
        assert sum(bars) == total
    assert sum(r["panel"] == "z by module" for r in histogram.rows) == len(classification.scaling)
