from dataclasses import replace

from ntk_propulsion.experiment.results import Experiment
from ntk_propulsion.report.answer import answer
from ntk_propulsion.report.claims import claims
from ntk_propulsion.report.document import Report, report_of
from ntk_propulsion.runs.records import from_json, to_json


def test_a_report_is_the_experiment_with_its_answer_and_claims(classification):
    report, results = classification.report, classification.results
    assert report.results.answer == tuple(answer(results))
    assert report.claims == tuple(claims(results))
    assert report.results.distances == results.distances


def test_a_report_reads_back_as_it_was_also_as_the_experiment_alone(classification):
    text = to_json(classification.report)
    assert from_json(Report, text) == classification.report
    assert from_json(Experiment, text) == classification.experiment


def test_what_is_not_known_yet_is_empty(classification):
    start = classification.changed(training=(), drift=(), scaling_vectors=())
    report = report_of(replace(start.experiment, complete=False))
    assert report.results.training == ()
    assert report.results.answer[0].startswith("This run goes on")
    assert report.results.answer[1].startswith("Before training")
