"""python -m ntk_propulsion.compare on task files that cannot be read as they are written."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny_runs
from tests.tiny_folders import save_model

ROOT = Path(__file__).parents[2]
GOOD = "".join(f"text {i},{i % 2}\n" for i in range(40))
JSON = "".join(f'{{"text": "text {i}", "label": {i % 2}}}\n' for i in range(40))
BAD = {
    "comma.csv": ("text,label\n" + GOOD + "good, really,1\n", "row 40 (counted from 0): 3 columns"),
    "twice.csv": ("text,label,label\n" + GOOD, "header: two columns are called 'label'"),
    "quote.csv": (
        "text,label\n" + GOOD + '"open,1\n',
        "row 40 (counted from 0): a quote is opened",
    ),
    "empty.csv": ("", "header: the file is empty"),
    "header.csv": ("text,label\n", "has no rows"),
    "nul.csv": ("text,label\n" + GOOD + "a\0,1\n", "row 40 (counted from 0): a NUL character"),
    "latin.csv": (b"text,label\ncaf\xe9,1\n", "row 0 (counted from 0): not UTF-8"),
    "utf16.csv": (("text,label\n" + GOOD).encode("utf-16"), "header: UTF-16"),
    "inf.csv": ("text,label\n" + GOOD + "a,inf\n", "row 40 (counted from 0): label 'inf' is not"),
    "nan.csv": ("text,label\n" + GOOD + "a,NaN\n", "row 40 (counted from 0): no label"),
    "short.tsv": ("text\tlabel\na\t1\nb\n", "row 1 (counted from 0): 1 columns"),
    "long.tsv": ("text\tlabel\na\t1\nb\t1\t0\n", "row 1 (counted from 0): 3 columns"),
    "missing.jsonl": (JSON + '{"label": 1}\n', "row 40 (counted from 0): unknown column 'text'"),
    "list.jsonl": (JSON + '{"text": "a", "label": [1]}\n', "row 40 (counted from 0): a list"),
    "half.jsonl": (JSON + '{"text": "\\ud83d", "label": 1}\n', "row 40 (counted from 0): column"),
    "deep.jsonl": (JSON + "[" * 10**5 + "\n", "row 40 (counted from 0): JSON nested"),
    "digits.jsonl": (
        JSON + f'{{"text": "a", "label": {"9" * 5000}}}\n',
        "row 40 (counted from 0): label '99",
    ),
    "keys.jsonl": (
        JSON + '{"text": "a", "label": 1, "label": 0}\n',
        "row 40 (counted from 0): the key 'label'",
    ),
    "no-object.jsonl": (JSON + "[]\n", "row 40 (counted from 0): not a JSON object"),
    "two\nlines.csv": ("", "header: the file is empty"),
}


def written(folder, name):
    content, said = BAD[name]
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path, said


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_line_with_its_row_and_exit_status_2(capfd, tmp_path, name):
    path, said = written(tmp_path, name)
    assert tiny_runs.run(tmp_path / "out", task=path) == 2
    told = capfd.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1
    assert said in told.err
    assert name.split("\n")[0] in told.err
    assert not (tmp_path / "out").exists()


def test_withheld_labels_of_a_glue_folder_are_one_line(capfd, tmp_path):
    (tmp_path / "SST-2").mkdir()
    lines = GOOD.replace(",", "\t")
    for name, more in (("train", ""), ("dev", "withheld\t-1\n")):
        (tmp_path / "SST-2" / f"{name}.tsv").write_text("sentence\tlabel\n" + lines + more)
    assert tiny_runs.run(tmp_path / "out", task="sst2", data=tmp_path) == 2
    said = capfd.readouterr().err
    assert "dev.tsv, row 40 (counted from 0): label '-1' is none of 0, 1" in said
    assert said.count("\n") == 1


def test_a_process_ends_with_status_2_and_one_line(tmp_path):
    path, said = written(tmp_path, "deep.jsonl")
    line = [sys.executable, "-m", "ntk_propulsion.compare", "--task", str(path)]
    done = subprocess.run(
        [*line, "--out", str(tmp_path / "out")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr


def test_a_padding_token_without_an_embedding_is_one_line(capfd, tmp_path):
    from transformers import AutoTokenizer

    model = save_model(tmp_path / "llama", "llama")
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(model)
    capfd.readouterr()
    assert tiny_runs.run(tmp_path / "out", model=model) == 2
    said = capfd.readouterr().err
    assert "the padding token [PAD]" in said
    assert said.count("\n") == 1
