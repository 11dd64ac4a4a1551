"""What an audit found, as report.json has it."""

import json
import math
from dataclasses import replace

import pytest

from ntk_propulsion.auditing.results import SCHEMA, AuditRecord
from ntk_propulsion.runs.records import from_json, schema, to_json
from tests.auditing import samples


def test_a_record_comes_back_from_its_json_whole():
    record = samples.audit(samples.checkpoint("a"), samples.checkpoint("b", degree=None)).record
    assert from_json(AuditRecord, to_json(record)) == record


def test_report_json_has_the_keys_that_readers_rely_on():
    found = json.loads(to_json(samples.audit().record))
    assert list(found) == ["schema", "config", "environment", "results", "verdicts"]
    assert found["schema"] == SCHEMA
    assert found["config"]["tuned"] == ["/models/c"]
    of = found["results"]["checkpoints"][0]
    assert of["kind"]["id"] == "propulsion"
    assert of["vectors"]["total"]["most_moved"] == [["total", 3, 0.9875]]
    assert of["updates"]["total"]["lora"][1] == {"rank": 2, "share": 0.55, "parameters": 192}
    assert of["kernels"]["distances"][0]["metrics"]["cka"]["low"] == 0.87
    assert of["integrity"]["ties"] == [
        {"tensors": ["embed.weight", "lm_head.weight"], "state": "kept"}
    ]


def test_verdicts_stand_beside_the_results_under_their_checkpoint_s_name():
    audit = samples.audit(samples.checkpoint("a"), samples.checkpoint("b"))
    said = audit.record.verdicts
    assert [each.checkpoint for each in said] == ["a"] * 8 + ["b"] * 8
    assert [each.verdict for each in said[:8]] == [v.verdict for v in audit.checkpoints[0].verdicts]


def test_labels_of_classes_stay_whole_numbers_and_values_do_not():
    audit = samples.audit()
    first = audit.results.examples[0]
    for label in (1, 2.5):
        results = replace(audit.results, examples=(replace(first, label=label),))
        read = from_json(AuditRecord, to_json(replace(audit, results=results).record))
        assert read.results.examples[0].label == label
        assert type(read.results.examples[0].label) is type(label)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_null(value):
    checkpoint = samples.checkpoint(updates=samples.updates(total=samples.together(share=value)))
    found = json.loads(to_json(samples.audit(checkpoint).record))
    assert found["results"]["checkpoints"][0]["updates"]["total"]["share"] is None


def test_the_form_is_documented():
    described = schema(AuditRecord)
    assert "AuditedCheckpoint" in described["$defs"]
    assert described["$defs"]["Integrity"]["description"]
