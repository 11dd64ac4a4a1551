import pytest

from ntk_propulsion.errors import InputError
from ntk_propulsion.tasks import load_task


def test_csv_quotes_hold_commas_and_line_breaks(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text(
        '\ufefftext,label\n"a, ""b""\nc",0\nplain,1\nmore,0\nlast,1\n', encoding="utf-8"
    )
    task = load_task(str(path))
    assert 'a, "b"\nc' in {e.text for e in (*task.train, *task.test)}


def test_unreadable_files_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*No such file"):
        load_task(str(tmp_path / "absent.csv"))
    latin = tmp_path / "latin.tsv"
    latin.write_bytes("text\tlabel\ncaf\u00e9\t0\n".encode("latin-1"))
    with pytest.raises(InputError, match="not UTF-8"):
        load_task(str(latin))
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"text": "a", "label": 0}\n{"text": \n')
    with pytest.raises(InputError, match=r"row 1 .*not JSON"):
        load_task(str(broken))
    other = tmp_path / "table.xlsx"
    other.write_bytes(b"")
    with pytest.raises(InputError, match=r"ends in \.csv"):
        load_task(str(other))
