"""The page of an audit, as a reader sees it."""

import base64
import csv
import io
import math
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from ntk_propulsion.auditing.checkpoint import AuditedKernels, Kind
from ntk_propulsion.auditing.coverage import Part
from ntk_propulsion.auditing.tables import VectorComparison
from ntk_propulsion.report.audit_page import audit_page, side_by_side
from ntk_propulsion.report.pictures import Picture
from tests.auditing import samples


class Reader(HTMLParser):
    """Sections by name, each with its text, its pictures and its tables by title."""

    def __init__(self, html):
        super().__init__()
        self.text, self.sections, self.section, self.table = "", {}, None, None
        self.cell = False
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        known = dict(attributes)
        if tag == "details" and "id" in known:
            self.section = {"open": "open" in known, "tables": {}, "csv": {}, "pictures": []}
            self.sections[known["id"]] = self.section | {"text": ""}
            self.section = self.sections[known["id"]]
        elif tag == "a" and self.section is not None and "aria-label" in known:
            title = known["aria-label"].removesuffix(", as CSV")
            text = base64.b64decode(known["href"].partition("base64,")[2]).decode()
            self.section["csv"][title] = list(csv.DictReader(io.StringIO(text)))
        elif tag == "img":
            self.section["pictures"].append(known["alt"])
        elif tag == "div" and known.get("role") == "region":
            self.table = self.section["tables"].setdefault(known["aria-label"], [])
        elif tag == "tr":
            self.table.append([])
        elif tag in ("td", "th"):
            self.table[-1].append("")
            self.cell = True

    def handle_endtag(self, tag):
        self.cell = self.cell and tag not in ("td", "th")

    def handle_data(self, data):
        self.text += data
        if self.section is not None:
            self.section["text"] += data
        if self.cell:
            self.table[-1][-1] += data

    def rows(self, section, title):
        """The rows of a table, by the headings."""
        heading, *rows = self.sections[section]["tables"][title]
        return [dict(zip(heading, row, strict=True)) for row in rows]


def page(*checkpoints, pictures=None, **changes):
    audit = samples.audit(*checkpoints)
    results = replace(audit.results, **changes)
    return Reader(audit_page(replace(audit, results=results).record, pictures or {}))


def test_the_answer_opens_the_page_and_says_what_was_audited():
    audit = samples.audit()
    found = page()
    assert "c, against minilm (22.7 M numbers)" in found.text
    for sentence in audit.answer:
        assert sentence.replace("z**5", "z5") in found.text.replace("z**5", "z5")
    assert "Note: vectors are read as they are" in found.text
    assert "Note: the base has no head" in found.text


def test_findings_and_verdicts_are_open_and_the_rest_is_folded():
    found = page().sections
    assert {name for name, section in found.items() if section["open"]} == {"findings", "verdicts"}
    assert {"updates", "ranks", "vectors", "kernels", "tensors", "configuration"} <= {*found}


def test_findings_come_with_their_severity_and_the_rule_that_says_them():
    checkpoint = samples.checkpoint(integrity=samples.integrity(nonfinite={"w": 7}))
    rows = page(checkpoint).rows(
        "findings", "By the rules written down in ntk_propulsion.auditing.findings"
    )
    assert rows[0] == {
        "severity": "broken",
        "finding": "7 values in 1 tensor are NaN or infinite, first in w",
        "said when": "any value of the file is NaN or infinite",
    }
    assert len(rows) == len(checkpoint.findings)


def test_every_question_has_its_answer_and_every_promise_its_count():
    found = page()
    answers = {row["question"]: row["answer"] for row in found.rows("verdicts", "Each question")}
    assert answers["frozen-base"] == "confirmed"
    assert answers["propulsion-share"] == "67%"
    assert answers["regime"] == "holds"
    (promise,) = found.rows("verdicts", "What configurations promise")
    assert promise["words"] == "it says rank 2, the factors have 2"


def test_a_layer_that_could_not_be_measured_says_why():
    layers = (samples.layer(), replace(samples.layer("x"), share=None, reason="not finite"))
    found = page(samples.checkpoint(updates=samples.updates(layers=layers)))
    first, second = found.rows("updates", "Layer by layer, the head too")
    assert (first["share"], first["chance"], first["not applicable because"]) == ("67%", "3.0%", "")
    assert (second["share"], second["not applicable because"]) == ("—", "not finite")


def test_vectors_are_shown_by_role_by_module_and_by_degree():
    found = page()
    rows = found.rows("vectors", "z, module by module")
    assert [row["module"] for row in rows] == [samples.QUERY, samples.DENSE]
    assert (rows[0]["min"], rows[0]["in [0.98, 1.02]"]) == ("0.9875", "100.0%")
    assert [row["role"] for row in found.rows("vectors", "z, role by role")] == ["query", "mlp"]
    degrees = found.rows("vectors", "All gains, if the degree were")
    assert [row["degree"] for row in degrees] == ["1", "55"]


def test_the_closest_lora_of_each_rank_has_its_price():
    rows = page().rows("ranks", "The closest update of one rank in all layers but the head's")
    assert [list(row.values()) for row in rows] == [["1", "30%", "96"], ["2", "55%", "192"]]


def test_kernels_have_distances_with_intervals_at_both_ends_and_their_drift():
    found = page()
    title = "Propulsion's kernel from full fine-tuning's: value [interval over examples]"
    rows = found.rows("kernels", title)
    assert [row["taken at"] for row in rows] == ["base", "tuned"]
    assert rows[0]["CKA"] == "0.912 [0.870, 0.950]"
    (drift,) = found.rows(
        "kernels", "Drift: each kernel at the base against itself at the tuned weights"
    )
    assert drift["CKA"] == "0.998"
    assert len(found.rows("kernels", "Each kernel")) == 4


def test_tensors_show_shapes_types_and_what_became_of_them():
    first, second = page().rows("tensors", "Every tensor of base and checkpoint")
    assert (first["state"], first["shape"]) == ("unchanged", "16x32")
    assert (second["state"], second["type in the base"]) == ("not in the base", "")


def test_settings_and_environment_are_on_the_page():
    text = page().sections["configuration"]["text"]
    for said in ("tuned", "/models/c", "sst2", "torch"):
        assert said in text


def test_words_are_explained():
    text = page().sections["reading"]["text"]
    for term in ("frozen base", "z and gain", "matching rank", "kernel regime"):
        assert term in text


def test_tables_come_whole_as_csv():
    rows = page().sections["updates"]["csv"]["Layer by layer, the head too"]
    assert [float(row["share"]) for row in rows] == [0.667, 0.667]
    assert "stable_rank" in rows[0], "columns that the page has no room for"
    (first, *_) = page().sections["kernels"]["csv"][
        "Propulsion's kernel from full fine-tuning's: value [interval over examples]"
    ]
    assert (float(first["cka"]), float(first["cka_low"])) == (0.912, 0.87)


def test_one_checkpoint_is_not_compared_and_has_no_column_of_names():
    found = page()
    assert "comparison" not in found.sections
    assert "checkpoint" not in found.rows("verdicts", "Each question")[0]


def test_several_checkpoints_stand_side_by_side():
    other = samples.checkpoint(
        "other",
        kind=Kind("full", "a full fine-tuning"),
        degree=None,
        vectors=None,
        kernels=None,
        updates=samples.updates(total=None, reason="no layer changed"),
    )
    pair = VectorComparison("c", "other", "total", 32, 0.25, None, 1.5, 0)
    found = page(samples.checkpoint(), other, comparison=(pair,))
    rows = found.rows("comparison", "The checkpoints side by side")
    assert [row["checkpoint"] for row in rows] == ["c", "other"]
    assert (rows[0]["z from"], rows[0]["share a Propulsion"]) == ("0.9875", "67%")
    assert rows[0]["kernel regime"] == "holds"
    assert {rows[1][key] for key in ("degree", "z from", "matching rank")} == {"—"}
    assert rows[1]["kernel regime"] == ""
    (row,) = found.rows("comparison", "Scaling vectors, two by two")
    assert (row["cosine of z - 1"], row["correlation of z"]) == ("0.250", "—")
    names = [row["checkpoint"] for row in found.rows("verdicts", "Each question")]
    assert names == ["c"] * 8 + ["other"] * 8
    assert "Note: c: vectors are read as they are" in found.text


def test_the_numbers_side_by_side_are_the_checkpoint_s():
    found = side_by_side(samples.checkpoint(integrity=samples.integrity(nonfinite={"w": 2})))
    assert (found.nonfinite, found.z_max, found.linearization_error) == (2, 1.0123, 0.031)


def test_what_the_headline_rests_on_stands_beside_it_and_with_each_verdict():
    part = samples.coverage(encoder=Part(8, 38, 400, 1000), layers=Part(1, 2, 528, 1056))
    found = page(samples.checkpoint(coverage=part))
    assert "compared: 40% of the base's parameters (8 of 38 tensors)" in found.text
    assert "measured: 50% of the changed layers' parameters (1 of 2 layers)" in found.text
    rows = {row["question"]: row for row in found.rows("verdicts", "Each question")}
    assert rows["frozen-base"]["rests on"].startswith("40% of the base's parameters")
    assert rows["propulsion-share"]["rests on"].startswith("50% of the changed layers'")
    assert rows["range"]["rests on"] == "all of the vectors' parameters (2 layers)"
    beside = side_by_side(samples.checkpoint(coverage=part))
    assert (beside.compared, beside.measured) == (0.4, 0.5)
    little = samples.coverage(layers=Part(1, 3, 10, 1056))
    assert side_by_side(samples.checkpoint(coverage=little)).share is None


@pytest.mark.parametrize("kernels", [None, AuditedKernels("degree unknown")])
def test_what_was_not_measured_has_no_section_and_says_why(kernels):
    found = page(samples.checkpoint(kernels=kernels, vectors=None))
    assert not {"kernels", "vectors"} & {*found.sections}
    assert ("no kernels: degree unknown" in found.text) == (kernels is not None)


def test_numbers_that_are_not_finite_are_dashes():
    layers = (samples.layer(share=math.nan, gain_max=math.inf),)
    found = page(samples.checkpoint(updates=samples.updates(layers=layers)))
    (row,) = found.rows("updates", "Layer by layer, the head too")
    assert (row["share"], row["to"]) == ("—", "—")


def test_pictures_go_to_the_section_that_their_name_begins_with():
    names = ("updates_1", "ranks_1", "vectors_1", "similarity_1", "regime_1", "kernels_base_1")
    found = page(pictures={name: Picture(name, name, "data:,x") for name in names}).sections
    shown = {name: section["pictures"] for name, section in found.items() if section["pictures"]}
    assert shown == {
        "updates": ["updates_1"],
        "ranks": ["ranks_1"],
        "vectors": ["vectors_1", "similarity_1"],
        "kernels": ["regime_1", "kernels_base_1"],
    }


def test_names_out_of_a_stranger_s_file_stay_text():
    nasty = "<script>alert(1)</script>"
    audit = samples.audit(
        samples.checkpoint(nasty, integrity=samples.integrity(nonfinite={nasty: 1}))
    )
    html = audit_page(audit.record, {})
    assert nasty not in html
    assert nasty in Reader(html).text
    assert "https://" not in html
    assert "http://" not in html
