import numpy as np
import pytest

from analysis.framework.catalogue import STUDIES
from analysis.framework.claims import RESULTS
from analysis.framework.tables import (
    TABLE,
    arrays_of,
    grouped,
    load_rows,
    table_of,
    where,
    write_rows,
)
from ntk_propulsion.errors import InputError

ROWS = [
    {"text": "1", "n": 3, "x": 0.1},
    {"text": "a, b", "n": 4, "x": None, "is": True},
    {"name": "kernel", "array": np.eye(2)},
]


def test_rows_come_back_with_their_types_and_arrays(tmp_path):
    write_rows(ROWS, tmp_path)
    first, second, picture = load_rows(tmp_path)
    assert [first, second] == [{**ROWS[0], "is": None}, ROWS[1]]
    assert isinstance(first["n"], int)
    assert picture["name"] == "kernel"
    assert np.array_equal(picture["array"], np.eye(2))


def test_a_damaged_table_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match="missing or damaged"):
        load_rows(tmp_path)
    (tmp_path / TABLE).write_text('"x"\n0.1.2\n')
    with pytest.raises(InputError, match="missing or damaged"):
        load_rows(tmp_path)


@pytest.mark.parametrize("study", STUDIES)
def test_kept_tables_come_back_to_six_digits(study, tmp_path):
    kept = [row for row in load_rows(RESULTS / study) if "array" not in row]
    write_rows(kept, tmp_path)
    for before, after in zip(kept, load_rows(tmp_path), strict=True):
        assert after == {
            key: pytest.approx(value, rel=1e-5) if isinstance(value, float) else value
            for key, value in before.items()
        }


def test_a_table_has_a_column_for_every_key_and_none_for_arrays():
    table = table_of(ROWS)
    assert list(table.columns) == ["text", "n", "x", "is"]
    assert len(table) == 2
    assert list(arrays_of(ROWS)) == ["kernel"]


def test_rows_are_chosen_and_grouped_by_their_values():
    rows = [{"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 1}]
    assert where(rows, a=1) == [rows[0], rows[2]]
    assert where(rows, a=1, b=1) == [rows[0]]
    assert grouped(rows, "a") == {(1,): [rows[0], rows[2]], (2,): [rows[1]]}
    assert list(grouped(rows, "b", "a")) == [(1, 1), (1, 2), (None, 1)]
