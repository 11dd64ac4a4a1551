import base64
import csv
import hashlib
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from ntk_propulsion.figures.plot import PairScale
from ntk_propulsion.report.downloads import csv_address
from ntk_propulsion.report.page import maths, page
from ntk_propulsion.report.pictures import Picture
from ntk_propulsion.theory.estimate import Estimate

NASTY = '<script>alert(1)</script><img src="http://evil.example/x.png">'
ENTRIES = [{"first": 0, "second": 1, "K_F": 2.5, "K_P": 1.0, "difference": 0.5}]
PNG = {
    "kernels_theta0_all": Picture(
        "kernels_theta0_all",
        "The key figure",
        "data:image/webp;base64,a2V5",
        csv_address(ENTRIES),
        PairScale(scale=2.0, limit=3.0),
    ),
    "kernels_theta0_without_head": Picture("kernels_theta0_without_head", "More", "data:,more"),
    "spectra": Picture("spectra", "Spectra", "data:,s", csv_address([{"rank": 1}])),
}


class Page(HTMLParser):
    """What a page holds: tags with their attributes, text, and each table's cells."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.tables, self.cell = [], "", [], None
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.cell = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.cell = None

    def handle_data(self, data):
        self.text += data
        if self.cell:
            self.tables[-1][-1][-1] += data


@pytest.fixture
def report(classification):
    return classification.report


def test_the_answer_comes_first_then_the_key_figure_then_the_sections(report):
    html = page(report, PNG)
    places = [
        html.index("Before training and up to one scale factor"),
        html.index("data:image/webp;base64,a2V5"),
        html.index('<details id="distances" open>'),
        html.index('<details id="reading">'),
    ]
    assert places == sorted(places)
    assert html.count("data:image/webp;base64,a2V5") == 1
    found = Page(html)
    sections = [a["id"] for tag, a in found.tags if tag == "details" and "id" in a]
    assert sections == ["distances", "heat-maps", "modules", "spectra", "scaling", "training",
                        "claims", "studies", "examples", "configuration", "reading"]  # fmt: skip


def test_nothing_is_loaded_from_anywhere(report):
    found = Page(page(report, PNG))
    for tag, attributes in found.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        for name in ("src", "href", "srcset", "action", "poster"):
            assert attributes.get(name, "data:").startswith("data:")
    policy = next(a["content"] for _, a in found.tags if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    html = page(report, PNG)
    assert not re.search(r"url\(|@import|https?://|fetch\(|XMLHttp", html)


def first(rows, **changes):
    """Return rows of which the first has other fields."""
    return (replace(rows[0], **changes), *rows[1:])


def test_whatever_came_from_data_is_escaped(classification):
    results = classification.results
    examples = first(results.examples, text=NASTY)
    other = replace(examples[1], text="</script><script>alert(2)</script><!--")
    metrics = {**results.distances[0].metrics, NASTY: Estimate(1.0)}
    made = classification.changed(
        examples=(examples[0], other, *examples[2:]),
        notes=(*results.notes, NASTY),
        model=replace(results.model, name=NASTY),
        task=replace(results.task, labels=(NASTY, "positive")),
        per_module=first(results.per_module, module=NASTY),
        scaling_vectors=first(results.scaling_vectors, module=NASTY),
        training=first(results.training, method=NASTY),
        distances=first(results.distances, tuning=NASTY, metrics=metrics),
    )
    report = made.report
    report = replace(
        report,
        config=replace(report.config, tunings=(NASTY,)),
        claims=first(report.claims, measured=NASTY),
    )
    html = page(report, PNG)
    found = Page(html)
    kinds = [a.get("type") for tag, a in found.tags if tag == "script"]
    assert kinds == ["application/json", None]
    assert [a["src"][:5] for tag, a in found.tags if tag == "img"] == ["data:"] * 3
    assert "<script>alert" not in html
    shown = json.loads(html.partition('id="explorer">')[2].partition("</script>")[0])
    assert NASTY in [text for example in shown["examples"] for text in example["texts"]]
    assert html.count("&lt;script&gt;alert(1)") >= 9


def test_tables_hold_the_results(report):
    found = Page(page(report, PNG))
    cka = report.results.distances[0].metrics["cka"]
    head, row = found.tables[0][:2]
    assert head[:4] == ["taken", "kernel", "part", "CKA"]
    assert row[:3] == ["before training (θ₀)", "Propulsion", "with the head"]
    assert row[3] == f"{cka.value:.3f} [{cka.low:.3f}, {cka.high:.3f}]"
    examples = next(t for t in found.tables if "index in the task" in t[0])
    assert len(examples) == 25
    assert examples[2] == ["1", "101", "positive", "9", "a text number 1, quite ordinary"]
    assert "holds up to a scale" in found.text
    assert "3 texts were truncated" in found.text


def test_each_table_can_be_taken_as_csv_at_full_precision(report):
    found = Page(page(report, PNG))
    links = {a["download"]: a["href"] for tag, a in found.tags if tag == "a"}
    assert {"distances.csv", "drift.csv", "per_module.csv", "kernels.csv", "scaling_vectors.csv",
            "training.csv", "claims.csv", "examples.csv", "config.csv"} <= set(links)  # fmt: skip
    text = base64.b64decode(links["distances.csv"].partition("base64,")[2]).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    cka = report.results.distances[0].metrics["cka"]
    assert float(rows[0]["cka"]) == cka.value
    assert float(rows[0]["cka_low"]) == cka.low


def test_cells_sort_by_their_value_not_by_its_text(report):
    found = Page(page(report, PNG))
    values = [a["data-v"] for tag, a in found.tags if tag == "td"]
    shares = [str(module.trace_share_full) for module in report.results.per_module]
    assert set(shares) <= set(values)
    assert "" in values  # a missing number


def test_infinite_and_missing_numbers_are_dashes(classification):
    kernels = first(classification.results.kernels, trace=float("nan"))
    html = page(classification.changed(kernels=kernels).report, PNG)
    assert ">nan<" not in html
    assert ">inf<" not in html


def test_indices_of_kernels_are_set_and_the_rest_stays_escaped():
    assert maths("K_F < z**k") == "K<sub>F</sub> &lt; z<sup>k</sup>"


def test_the_browser_may_run_the_pages_own_script_and_no_other(report):
    html = page(report, PNG)
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(a["content"] for _, a in Page(html).tags if a.get("http-equiv"))
    assert f"script-src 'sha256-{digest}';" in policy


def test_each_figure_has_its_data_beside_it_and_pairs_what_one_points_with(report):
    html = page(report, PNG)
    found = Page(html)
    links = {a["download"]: a["href"] for tag, a in found.tags if tag == "a"}
    assert links["kernels_theta0_all.csv"] == csv_address(ENTRIES)
    assert links["spectra.csv"] == csv_address([{"rank": 1}])
    assert "kernels_theta0_without_head.csv" not in links
    limits = [a.get("data-limit") for tag, a in found.tags if tag == "figure"]
    assert limits == ["3.0", None, None]
    plain = page(report, {"spectra": PNG["spectra"]})
    assert 'id="explorer"' not in plain
    assert "<template" not in plain
