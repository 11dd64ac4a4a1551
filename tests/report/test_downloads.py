import base64
import csv
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntk_propulsion.errors import plain
from ntk_propulsion.report.downloads import csv_address, csv_text


def read(text):
    return list(csv.reader(io.StringIO(text)))


@pytest.mark.parametrize(
    "text", ['=HYPERLINK("http://evil.example")', "+1+1", "-2+3|cmd", "@SUM(A1)", "\t=1", "\r=1"]
)
def test_a_text_that_a_spreadsheet_would_run_gets_an_apostrophe(text):
    head, row = read(csv_text([{"text": text, text: 1}]))
    assert row == [f"'{plain(text)}", "1"]
    assert head == ["text", f"'{plain(text)}"]


@pytest.mark.parametrize("value", [-1.5, "-1.5", "+3e-2", -2, "- no, yes"[2:], "a=b", ""])
def test_numbers_and_other_texts_stay_as_they_are(value):
    assert read(csv_text([{"a": value, "b": 0}]))[1] == [str(value), "0"]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1))
def test_no_cell_begins_a_formula_and_no_text_is_lost(texts):
    rows = read(csv_text([{"text": text} for text in texts]))[1:]
    assert [row[0].removeprefix("'") for row in rows if row] == [
        plain(text).removeprefix("'") for text in texts
    ]
    for (cell,) in rows:
        if cell[0] in "=+-@\t\r":
            float(cell)


@given(st.floats(allow_nan=False))
def test_numbers_keep_every_digit_also_numpys(value):
    assert float(read(csv_text([{"x": np.float64(value)}]))[1][0]) == value


def test_the_address_holds_the_file():
    address = csv_address([{"text": "für </script>"}])
    head, coded = address.split(",")
    assert head == "data:text/csv;charset=utf-8;base64"
    assert base64.b64decode(coded).decode() == "text\r\nfür </script>\r\n"


def test_a_dataclass_is_a_row_and_its_distances_are_columns(classification):
    distance = classification.results.distances[0]
    (row,) = csv.DictReader(io.StringIO(csv_text([distance])))
    assert (row["point"], row["tuning"]) == (distance.point, distance.tuning)
    cka = distance.metrics["cka"]
    assert [float(row[f"cka{end}"]) for end in ("", "_low", "_high")] == [
        cka.value, cka.low, cka.high,
    ]  # fmt: skip
