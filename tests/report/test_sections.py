import json
from dataclasses import replace

import pytest

from ntk_propulsion import words
from ntk_propulsion.experiment.results import SweepResult
from ntk_propulsion.report.document import report_of
from ntk_propulsion.report.pictures import Picture
from ntk_propulsion.report.sections import STUDIES, Section, sections, shown
from ntk_propulsion.training.sweep import Trial
from tests.report import made_experiment

SUM = "propulsion+bitfit"


def by_name(report, *pictures):
    drawn = {name: Picture(name, name, "data:,") for name in pictures}
    return {section.name: section for section in sections(report, drawn)}


def table(report, section, name):
    (found,) = [each for each in by_name(report)[section].tables if each.name == name]
    return found


def column(sheet, title):
    """Return the texts of one column."""
    place = [each.title for each in sheet.columns].index(title)
    return [row[place].text for row in sheet.rows]


@pytest.fixture(scope="module")
def recorded():
    """The report of an experiment that swept rates and recorded trajectories."""
    return report_of(made_experiment.experiment(made_experiment.arrays()))


def test_the_distances_come_first_and_are_the_only_section_that_is_open(recorded):
    names = [*by_name(recorded, "kernels_x")]
    assert names == ["distances", "heat-maps", "modules", "spectra", "scaling", "training",
                     "trajectories", "claims", "studies", "examples", "configuration",
                     "reading"]  # fmt: skip
    assert [section.name for section in sections(recorded, {}) if section.open] == ["distances"]


def test_what_was_not_measured_has_no_section(classification):
    made = classification.changed(scaling_vectors=(), training=(), drift=())
    found = by_name(made.report)
    assert not {"training", "scaling", "heat-maps", "trajectories"} & {*found}
    assert [each.name for each in found["distances"].tables] == ["distances"]


def test_a_section_is_shown_for_its_tables_its_figures_or_its_terms():
    kept = [
        Section("figures", "", figures=[Picture("f", "f", "data:,")]),
        Section("terms", "", terms={"K": "a kernel"}),
    ]
    assert shown([Section("empty", ""), *kept]) == kept


def test_a_figure_goes_to_the_section_that_its_name_begins_with(recorded):
    found = by_name(
        recorded, "distances", "kernels_full_tuned_all", "sweeps", "training", "spectra"
    )
    placed = {name: [p.name for p in section.figures] for name, section in found.items()}
    assert placed["distances"] == ["distances"]
    assert placed["heat-maps"] == ["kernels_full_tuned_all"]
    assert placed["training"] == ["training", "sweeps"]
    assert placed["modules"] == []


def test_columns_of_tunings_name_a_sum_by_its_parts(classification):
    results, label = classification.results, "Propulsion + BitFit"
    made = classification.changed(
        distances=tuple(replace(row, tuning=SUM) for row in results.distances),
        drift=tuple(replace(row, method=SUM, tuning=SUM) for row in results.drift),
        kernels=tuple(replace(row, tuning=SUM) for row in results.kernels),
        training=tuple(replace(row, method=SUM) for row in results.training),
        sweeps=(SweepResult(SUM, 1e-3, given=True),),
    )
    for section, name, titles in (
        ("distances", "distances", ["kernel"]),
        ("distances", "drift", ["kernel", "trained by"]),
        ("spectra", "kernels", ["kernel"]),
        ("training", "training", ["method"]),
        ("training", "sweeps", ["method"]),
    ):
        for title in titles:
            assert {*column(table(made.report, section, name), title)} == {label}, (name, title)


def test_points_and_parts_have_their_names_for_people(classification):
    kernels = table(classification.report, "spectra", "kernels")
    assert {*column(kernels, "taken")} == {words.POINTS[k] for k in words.POINTS}
    assert {*column(kernels, "part")} == {words.PARTS["all"], words.PARTS["without_head"]}


def test_a_z_keeps_its_fourth_digit_and_names_the_neurons_that_moved_most(classification):
    vectors = table(classification.report, "scaling", "scaling_vectors")
    summary = classification.results.scaling_vectors[0]
    moved = summary.most_moved[0]
    assert column(vectors, "min")[0] == words.number(summary.min, 4)
    assert column(vectors, "moved most: neuron (z)")[0].startswith(
        f"{moved.neuron} ({words.number(moved.z, 4)}), "
    )


def test_each_rate_says_whether_it_was_given_or_chosen_or_diverged(classification):
    trials = (Trial(1e-4, 0.7, 0.5), Trial(1e-3, 0.6, 0.8), Trial(1e-2, None, None))
    made = classification.changed(
        sweeps=(
            SweepResult("full", 2e-5, given=True),
            SweepResult("lora", 2e-5, given=False),
            SweepResult("propulsion", 1e-3, given=False, trials=trials),
        )
    )
    tried = table(made.report, "training", "sweeps")
    assert column(tried, "taken") == ["given", "not swept", "", "chosen", "diverged"]
    assert column(tried, "validation loss") == ["—", "—", "0.700", "0.600", "—"]


def test_a_training_that_diverged_is_listed_apart(recorded):
    names = [each.name for each in by_name(recorded)["trajectories"].tables]
    assert "diverged" not in names
    first, *others = recorded.results.trajectories
    broken = replace(first, diverged="the loss is no number at step 3")
    results = replace(recorded.results, trajectories=(broken, *others))
    listed = table(replace(recorded, results=results), "trajectories", "diverged")
    assert column(listed, "diverged") == [broken.diverged]


def test_labels_of_classes_are_names_and_only_pairs_have_a_second_text(classification, regression):
    named = table(classification.report, "examples", "examples")
    assert column(named, "label")[:2] == ["negative", "positive"]
    assert "second text" not in [each.title for each in named.columns]
    pairs = table(regression.report, "examples", "examples")
    assert column(pairs, "second text")[3] == "its pair 3"
    assert column(pairs, "label")[0] == str(regression.results.examples[0].label)


def test_every_claim_has_its_row_and_so_have_those_of_the_studies(classification):
    claims = table(classification.report, "claims", "claims")
    assert column(claims, "id") == [claim.id for claim in classification.report.claims]
    studies = table(classification.report, "studies", "studies")
    assert column(studies, "id") == [row["id"] for row in json.loads(STUDIES.read_text())]
