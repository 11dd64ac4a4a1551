import json
import os

import pytest

from ntk_propulsion.errors import InputError
from ntk_propulsion.tasks import load_task, tables
from ntk_propulsion.tasks.tables import Written, read_file, read_jsonl, read_tsv


def file(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows(path):
    return list(read_file(path))


def refusal(path):
    with pytest.raises(InputError) as caught:
        rows(path)
    said = str(caught.value)
    assert said.startswith(str(path))
    assert said.isprintable()
    return said.removeprefix(str(path))


def test_csv_quotes_hold_commas_and_line_breaks(tmp_path):
    path = file(tmp_path, "d.csv", '\ufefftext,label\n"a, ""b""\nc",0\nplain,1\nmore,0\nlast,1\n')
    task = load_task(str(path))
    assert 'a, "b"\nc' in {e.text for e in (*task.train, *task.test)}


def test_unreadable_files_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*No such file"):
        load_task(str(tmp_path / "absent.csv"))
    with pytest.raises(InputError, match=r"cannot read .*: no file has such a name"):
        load_task("a\0b.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match=r"cannot read .*directory"):
        load_task(str(tmp_path / "folder.csv"))
    with pytest.raises(InputError, match=r"ends in \.csv"):
        load_task(str(file(tmp_path, "table.xlsx", b"")))


def test_a_file_whose_name_is_two_lines_is_refused_in_one(tmp_path):
    with pytest.raises(InputError, match=r"two\\nlines\.csv.*empty") as caught:
        load_task(str(file(tmp_path, "two\nlines.csv", b"")))
    assert "\n" not in str(caught.value)


def test_a_suffix_may_be_in_capitals(tmp_path):
    assert rows(file(tmp_path, "D.TSV", "text\tlabel\na\t1\n")) == [
        (0, {"text": "a", "label": "1"})
    ]


HEAD = "text,label\nfine,0\n"
BAD_CSV = {
    "a comma": (HEAD + "good, really good,1\n", ", row 1 (counted from 0): 3 columns, but 2 are"),
    "a comma at the end": (HEAD + "good,1,\n", ", row 1 (counted from 0): 3 columns, but 2 are"),
    "too few": (HEAD + "good\n", ", row 1 (counted from 0): 1 columns, but 2 are needed"),
    "late": (HEAD + "fine,1\n" * 9 + "a,b,c\n", ", row 10 (counted from 0): 3 columns"),
    "after blanks": (HEAD + "\n\r\n  \na,b,c\n", ", row 1 (counted from 0): 3 columns"),
    "after a text of lines": ('text,label\n"a\nb\nc",0\na,b,c\n', ", row 1 (counted from 0): 3"),
    "a space before a quote": (HEAD + ' "a, b",1\n', ", row 1 (counted from 0): 3 columns"),
    "open quote": (
        HEAD + '"never closed,1\nnext,0\n',
        ", row 1 (counted from 0): a quote is opened",
    ),
    "open quote in the header": ('text,"label\na,1\n', ", header: a quote is opened"),
    "text after a quote": (HEAD + '"He said "no" twice",1\n', ", row 1 (counted from 0): text fol"),
    "two labels": ("label,text,label\n1,a,0\n", ", header: two columns are called 'label'"),
    "two of another": ("id,text,id,label\n1,a,0,1\n", ", header: two columns are called 'id'"),
    "the header again": (HEAD + HEAD, ", row 1 (counted from 0): the header stands here again"),
    "latin-1": (HEAD.encode() + b"caf\xe9,1\n", ", row 1 (counted from 0): not UTF-8 text: save"),
    "half a surrogate": (
        HEAD.encode() + b"\xed\xa0\xbd,1\n",
        ", row 1 (counted from 0): not UTF-8",
    ),
    "cut short": (HEAD.encode() + "caf\u00e9".encode()[:-1], ", row 1 (counted from 0): not UTF-8"),
    "UTF-16": (HEAD.encode("utf-16"), ", header: UTF-16: save the file as UTF-8"),
    "UTF-16, unmarked": (HEAD.encode("utf-16-le"), ", header: a NUL character"),
    "NUL": (HEAD + "go\0od,1\n", ", row 1 (counted from 0): a NUL character"),
    "nothing": ("", ", header: the file is empty"),
    "a mark alone": ("\ufeff", ", header: the file is empty"),
    "line ends alone": ("\n\r\n\n", ", header: the file is empty"),
}


@pytest.mark.parametrize(("content", "said"), BAD_CSV.values(), ids=BAD_CSV)
def test_a_csv_row_that_cannot_be_read_as_written_is_named(tmp_path, content, said):
    assert refusal(file(tmp_path, "d.csv", content)).startswith(said)


HEAD_TSV = "text\tlabel\nfine\t0\n"
BAD_TSV = {
    "a tab": (HEAD_TSV + "go\tod\t1\n", ", row 1 (counted from 0): 3 columns, but 2 are needed"),
    "too few": (HEAD_TSV + "good\n", ", row 1 (counted from 0): 1 columns, but 2 are needed"),
    "after blanks": (HEAD_TSV + "\n\r\n  \ngood\n", ", row 4 (counted from 0): 1 columns"),
    "quoted lines": (HEAD_TSV + '"go\nod"\t1\n', ", row 1 (counted from 0): 1 columns"),
    "two labels": ("label\tlabel\ttext\n1\t0\ta\n", ", header: two columns are called 'label'"),
    "the header again": (HEAD_TSV + HEAD_TSV, ", row 1 (counted from 0): the header stands here"),
    "latin-1": (HEAD_TSV.encode() + b"caf\xe9\t1\n", ", row 1 (counted from 0): not UTF-8"),
    "UTF-16": (HEAD_TSV.encode("utf-16"), ", header: UTF-16"),
    "NUL": (HEAD_TSV + "\0", ", row 1 (counted from 0): a NUL character"),
    "nothing": ("", ", header: the file is empty"),
}


@pytest.mark.parametrize(("content", "said"), BAD_TSV.values(), ids=BAD_TSV)
def test_a_tsv_row_that_cannot_be_read_as_written_is_named(tmp_path, content, said):
    assert refusal(file(tmp_path, "d.tsv", content)).startswith(said)


FINE = '{"text": "fine", "label": 0}\n'
BAD_JSONL = {
    "cut": (FINE + '{"text": \n', ", row 1 (counted from 0): not JSON (Expecting value"),
    "two objects": (FINE + FINE[:-1] + FINE, ", row 1 (counted from 0): not JSON (Extra data"),
    "a list": (FINE + '["good", 1]\n', ", row 1 (counted from 0): not a JSON object"),
    "the whole as a list": (f"[{FINE}]", ", row 0 (counted from 0): not JSON"),
    "null": ("\n" + FINE + "null\n", ", row 2 (counted from 0): not a JSON object"),
    "number": ("1\n", ", row 0 (counted from 0): not a JSON object"),
    "two keys": (
        '{"text": "a", "label": 0, "label": 1}\n',
        ", row 0 (counted from 0): the key 'la",
    ),
    "two keys inside": (
        '{"text": {"a\\n": 0, "a\\n": 1}}\n',
        ", row 0 (counted from 0): the key 'a",
    ),
    "deep": (FINE + '{"text": ' + "[" * 10**5 + "\n", ", row 1 (counted from 0): JSON nested too"),
    "deep and whole": (
        '{"text": ' + '{"a":' * 10**5 + "1" + "}" * 10**5 + "}\n",
        ", row 0 (counted from 0): JSON nested too",
    ),
    "latin-1": (FINE.encode() + b'{"text": "\xe9"}\n', ", row 1 (counted from 0): not UTF-8"),
    "UTF-16": (FINE.encode("utf-16"), ", row 0 (counted from 0): UTF-16"),
    "NUL": (FINE + "\0\n", ", row 1 (counted from 0): a NUL character"),
    "a mark inside": (
        FINE + "\ufeff" + FINE,
        ", row 1 (counted from 0): not JSON (Unexpected UTF-8",
    ),
}


@pytest.mark.parametrize(("content", "said"), BAD_JSONL.values(), ids=BAD_JSONL)
def test_a_json_line_that_is_no_object_is_named(tmp_path, content, said):
    assert refusal(file(tmp_path, "d.jsonl", content)).startswith(said)


def test_numbers_of_json_are_kept_as_they_are_written(tmp_path):
    many = "9" * 5000
    line = f'{{"a": {many}, "b": 1e400, "c": [0.10], "d": "1", "e": -0, "f": NaN, "g": -Infinity}}'
    ((_, row),) = read_jsonl(file(tmp_path, "d.jsonl", line))
    assert (row["a"], row["b"], row["c"], row["e"], row["g"]) == (
        *(many, "1e400", ["0.10"], "-0", "-Infinity"),
    )
    assert isinstance(row["a"], Written)
    assert not isinstance(row["d"], Written)
    assert row["f"] is None


def test_other_line_ends_blank_lines_and_unnamed_columns_are_read(tmp_path):
    wanted = [("a", "0"), ("b", "1")]
    for ends in ("\n", "\r\n", "\r"):
        text = ends.join(["", "text,label", "", "a,0", "  ", "b,1"])
        found = rows(file(tmp_path, "d.csv", text))
        assert [(i, *row.values()) for i, row in found] == [(i, *w) for i, w in enumerate(wanted)]
    found = rows(file(tmp_path, "d.tsv", "\n\ntext\tlabel\r\n\na\t0\r\n\n  \nb\t1"))
    assert [(i, *row.values()) for i, row in found] == [(1, "a", "0"), (4, "b", "1")]
    found = rows(file(tmp_path, "d.csv", ",text,label,,\n0,a,1,,\n"))
    assert [row["text"] + row["label"] for _, row in found] == ["a1"]


def test_only_a_line_feed_ends_a_line_of_tsv_and_json(tmp_path):
    odd = "a\u2028b\x0cc\x85d\x1ee"
    ((_, row),) = rows(file(tmp_path, "d.tsv", f"text\tlabel\n{odd}\t1\n"))
    assert row["text"] == odd
    line = json.dumps({"text": odd}, ensure_ascii=False)
    ((_, row),) = rows(file(tmp_path, "d.jsonl", line))
    assert row["text"] == odd


def test_a_table_without_header_may_have_columns_more_if_it_is_said_how_many(tmp_path):
    path = file(tmp_path, "d.tsv", "1\ta\n2\tb\tx\ty\n3\tc\td\n")
    found = read_tsv(path, ("label", "text"), widths=(2, 4))
    assert [next(found)[1]["text"] for _ in range(2)] == ["a", "b"]
    with pytest.raises(InputError, match=r"row 2 .*3 columns, but 2 or 4 are needed"):
        next(found)


def test_a_pipe_or_a_device_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "zero.jsonl").symlink_to("/dev/zero")
    for name in ("pipe.csv", "zero.jsonl"):
        with pytest.raises(InputError, match="a directory, a pipe or a device"):
            load_task(str(tmp_path / name))


def test_a_line_without_an_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "LONGEST", 100)
    path = file(tmp_path, "x.jsonl", '{"text": "a"}\n' + "x" * 200)
    assert "a line of more than 100 bytes" in refusal(path)


def test_many_columns_take_no_longer_than_they_are_many(tmp_path):
    path = file(tmp_path, "x.csv", ",".join(f"c{i}" for i in range(100_000)) + "\n1\n")
    assert "1 columns, but 100000 are needed" in refusal(path)
    path = file(tmp_path, "y.csv", ",".join(f"c{i % 99_999}" for i in range(100_000)) + "\n1\n")
    assert "two columns are called 'c0'" in refusal(path)


def test_a_name_that_no_file_can_have_is_an_unknown_task():
    with pytest.raises(InputError, match="unknown task"):
        load_task("x" * 5000)
