import base64
import csv
import io
from dataclasses import dataclass

import pytest

from ntk_propulsion.report.sheets import (
    LONG,
    Column,
    metric_columns,
    number_column,
    sheet,
    tuning_column,
    words_column,
)
from ntk_propulsion.theory.estimate import Estimate, Estimates


@dataclass(frozen=True)
class Row:
    """One row of a made-up table."""

    name: str | None = "full"
    size: float | None = 0.25
    metrics: Estimates | None = None


def cells(column, *rows):
    """Return the cells of a table of this one column."""
    return [row[0] for row in sheet("t", "T", [column], rows).rows]


def texts(column, *rows):
    return [cell.text for cell in cells(column, *rows)]


def test_a_column_is_headed_by_its_field_unless_it_has_a_title():
    assert words_column("best_scale").title == "best scale"
    assert number_column("n", "neurons").title == "neurons"
    assert tuning_column("method", "trained by").title == "trained by"


def test_words_have_names_for_people_where_given_and_nothing_for_none():
    column = words_column("name", names={"full": "Full fine-tuning"})
    assert texts(column, Row(), Row("other"), Row(None)) == ["Full fine-tuning", "other", ""]


def test_tunings_have_their_labels_and_a_sum_those_of_its_parts():
    rows = [Row("full"), Row("propulsion+bitfit"), Row("my_own"), Row(None)]
    column = tuning_column("name")
    assert texts(column, *rows)[1:] == ["Propulsion + BitFit", "my own", ""]
    assert texts(column, Row("propulsion+full"))[0].split(" + ")[1] == texts(column, rows[0])[0]
    assert [cell.sort for cell in cells(column, *rows)] == [
        "full",
        "propulsion+bitfit",
        "my_own",
        "",
    ]


def test_a_number_is_shown_short_and_sorts_by_all_its_digits():
    (cell,) = cells(number_column("size"), Row(size=1 / 3))
    assert (cell.text, cell.sort, cell.kind) == ("0.333", str(1 / 3), "n")


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_a_number_that_is_missing_or_not_finite_is_a_dash_and_sorts_as_nothing(value):
    (cell,) = cells(number_column("size"), Row(size=value))
    assert (cell.text, cell.sort) == ("—", "")


def test_a_mapping_is_a_row_too_and_may_lack_a_field():
    assert texts(number_column("size"), {"size": 2}, {}) == ["2", "—"]


def test_every_distance_that_occurs_is_a_column_the_leading_ones_first():
    rows = [
        Row(metrics={"mine": Estimate(0.5), "alignment": Estimate(0.9)}),
        Row(metrics={"cka": Estimate(0.8, 0.7, 0.85)}),
        Row(),
    ]
    first, second, third = metric_columns(rows)
    assert (first.title, third.title) == ("CKA", "mine")
    assert texts(first, *rows) == ["—", "0.800 [0.700, 0.850]", "—"]
    assert [cell.sort for cell in cells(second, *rows)] == ["0.9", "", ""]


def test_a_long_text_has_a_wide_column_and_a_verdict_its_colour():
    texts = [Row("a" * LONG), Row("a" * (LONG + 1))]
    assert [cell.kind for cell in cells(words_column("name"), *texts)] == ["", "long"]
    verdicts = [Row("holds"), Row("fails"), Row("undecided")]
    kinds = [cell.kind for cell in cells(words_column("name", "verdict"), *verdicts)]
    assert kinds == ["verdict-holds", "verdict-fails", ""]


def test_a_column_may_write_a_cell_from_its_whole_row():
    column = Column("both", lambda row: row.size, text=lambda row: f"{row.name} {row.size}")
    (cell,) = cells(column, Row())
    assert (cell.text, cell.sort) == ("full 0.25", "0.25")


def test_the_csv_of_a_table_holds_every_field_not_only_what_is_shown():
    made = sheet("t", "T", [words_column("name")], iter([Row(size=1 / 3)]))
    text = base64.b64decode(made.csv.partition("base64,")[2]).decode()
    (row,) = csv.DictReader(io.StringIO(text))
    assert (row["name"], float(row["size"])) == ("full", 1 / 3)
    assert len(made.rows) == 1
