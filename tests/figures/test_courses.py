import copy

import pytest

from ntk_propulsion.figures.before import courses
from ntk_propulsion.figures.style import render
from ntk_propulsion.report.sections import sections
from ntk_propulsion.report.writer import draw_courses
from ntk_propulsion.trajectories.tables import course_distances, course_points, regime_summaries
from tests.trajectories.recorded import recorded

METHODS = ("full", "propulsion")


def sweep(method, losses, chosen, at_edge=False):
    rates = [10.0**i for i in range(-4, -4 + len(losses))]
    trials = [
        {"learning_rate": rate, "loss": loss, "metric": None if loss is None else 0.5}
        for rate, loss in zip(rates, losses, strict=True)
    ]
    return {"method": method, "chosen": chosen, "given": False, "at_edge": at_edge, "steps": 7,
            "examples": 9, "trials": trials}  # fmt: skip


@pytest.fixture(scope="module")
def trajectories():
    return {method: recorded(method) for method in METHODS}


@pytest.fixture
def report(classification, trajectories):
    found = copy.deepcopy(classification.report)
    found["results"] |= {
        "sweeps": [
            sweep("full", [0.7, 0.6, None], 1e-3),
            sweep("propulsion", [0.5, 0.6], 1e-4, at_edge=True),
        ],
        "trajectories": [
            {"method": m, "learning_rate": 0.01, "examples": 4, "steps": [0, 1, 4], "diverged": ""}
            for m in METHODS
        ],
        "courses": [vars(row) for row in course_points(trajectories)],
        "between": [vars(row) for row in course_distances(trajectories)],
        "regimes": [vars(row) for row in regime_summaries(trajectories)],
    }  # fmt: skip
    return found


def test_a_sweep_is_drawn_with_its_choice_filled_and_what_diverged_crossed(report):
    figure = courses.sweep_figure(report["results"])
    (ax,) = figure.axes
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["full fine-tuning: 0.001", "Propulsion: 0.0001 (at the edge)"]
    assert [line.get_marker() for line in ax.lines].count("x") == 1
    assert [row["chosen"] for row in figure.rows] == [False, True, False, True, False]
    render(figure)


def test_distances_between_methods_are_drawn_over_the_recorded_steps(report, trajectories):
    figure = courses.between_figure(report["results"])
    assert len(figure.axes) == len(courses.MEASURES) * len(courses.KERNELS)
    for ax in figure.axes:
        assert [list(line.get_xdata()) for line in ax.lines] == [trajectories["full"].steps]
    assert "4 of them" in figure.get_supxlabel()


def test_figures_of_trajectories_carry_their_numbers(trajectories):
    drawn = trajectories["full"].plot(trajectories["propulsion"])
    assert {row["method"] for row in drawn.rows} == {*METHODS}
    pixels = trajectories["full"].plot_changes().rows
    assert {row["image"] for row in pixels} == {"K_0", "change at step 1", "change at step 4"}
    assert len(pixels) == 3 * 4 * 4


def test_the_page_has_a_section_along_training(report, trajectories):
    drawn = draw_courses(report, trajectories)
    assert {*drawn} == {"sweep", "trajectories", "trajectories_between"} | {
        f"trajectories_change_{method}" for method in METHODS
    }
    found = {section.name: section for section in sections(report, drawn)}
    assert len(found["trajectories"].figures) == 4
    assert drawn["sweep"] in found["training"].figures
    assert [sheet.name for sheet in found["trajectories"].tables] == [
        "regimes",
        "between",
        "courses",
    ]


def test_a_run_without_recordings_draws_none(classification):
    assert draw_courses(classification.report, {}) == {}
