"""Files of all kinds are read as Python's own readers read them, or refused in one line."""

import csv
import json
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ntk_propulsion.errors import InputError
from ntk_propulsion.tasks import load_task

PIECES = [
    *("text", "label", "a", "1", "0", "-1", "1.0", "0.5", "1_0", "nan", "inf", "9007199254740993"),
    *(",", ",", "\t", "\t", "\n", "\n", "\n", "\r\n", "\r", '"', '"', '""', "{", "}", "[", "]"),
    *(":", " ", "\\ud83d", "\\u0000", "\ufeff", "\u2028", "\u0661", "caf\u00e9", "1e400", "null"),
]
BYTES = [*(piece.encode() for piece in PIECES), b"\0", b"\xff", b"\xed\xa0\xbd", b"\xfe\xff"]
FEW = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def whole(suffix):
    """Return a valid file, as bytes."""
    rows = [(f"text {i}, {'good' if i % 2 else 'bad'}", i % 2) for i in range(12)]
    if suffix == ".jsonl":
        return "".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in rows).encode()
    if suffix == ".tsv":
        return ("text\tlabel\n" + "".join(f"{t}\t{y}\n" for t, y in rows)).encode()
    return ("text,label\n" + "".join(f'"{t}",{y}\n' for t, y in rows)).encode()


@st.composite
def mutated(draw, suffix):
    content = whole(suffix)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        gone = draw(st.integers(0, 12))
        content = content[:at] + draw(st.sampled_from([b"", *BYTES])) + content[at + gone :]
    return content


def made(suffix):
    pieces = st.lists(st.sampled_from(BYTES), max_size=60).map(b"".join)
    headed = st.builds(lambda rest: whole(suffix)[:24] + rest, pieces)
    return st.one_of(mutated(suffix), mutated(suffix), headed, pieces, st.binary(max_size=80))


def expected(path):
    """Return texts and labels of each row by Python's own readers."""
    if path.suffix == ".jsonl":
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
        rows = [json.loads(line, parse_float=Decimal) for line in lines if line.strip()]
    elif path.suffix == ".tsv":
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
        fields = [line.rstrip("\r").split("\t") for line in lines]
        rows = matched(fields, " ")
    else:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = matched(list(csv.reader(file)))
    return [(row["text"], row["label"]) for row in rows]


def matched(fields, blank=None):
    names, *rows = (row for row in fields if "".join(row).strip(blank) or len(row) > 1)
    return [dict(zip(names, row, strict=True)) for row in rows]


def same(label, raw):
    """Return whether a label is the one that stands in the file, or the same number."""
    if isinstance(label, float):
        return label == float(raw)
    if isinstance(raw, bool) or not isinstance(raw, (int, Decimal)):
        raw = str(raw).strip()
    return label == str(raw) or Decimal(label) == Decimal(raw)


def loaded(path):
    """Return the task of a file, or why it is refused."""
    try:
        return load_task(str(path))
    except InputError as error:
        return str(error)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
@given(data=st.data())
@FEW
@example(data=None)
def test_a_file_is_read_as_python_reads_it_or_refused_in_one_line(tmp_path, suffix, data):
    path = tmp_path / f"d{suffix}"
    path.write_bytes(data.draw(made(suffix)) if data is not None else whole(suffix))
    task = loaded(path)
    if isinstance(task, str):
        assert data is not None
        assert task.isprintable()
        assert str(path) in task
        return
    rows, read = expected(path), (*task.train, *task.test)
    texts = {}
    for text, label in rows:
        texts.setdefault(text if isinstance(text, str) else "", []).append(label)
    assert {e.text for e in read} == set(texts)
    for e in read:
        label = task.labels[e.label] if task.labels else e.label
        assert any(same(label, raw) for raw in texts[e.text])
