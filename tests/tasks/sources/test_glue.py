import re
import unicodedata

import pytest

from ntk_propulsion.errors import InputError
from ntk_propulsion.tasks import load_task


@pytest.mark.parametrize(
    ("name", "train", "test", "labels", "metric"),
    [
        ("sst2", 67349, 872, ("negative", "positive"), "accuracy"),
        ("rte", 2490, 277, ("entailment", "not_entailment"), "accuracy"),
        ("cola", 8551, 1043, ("unacceptable", "acceptable"), "matthews"),
        ("stsb", 5749, 1500, (), "pearson"),
    ],
)
def test_glue_task_reads_every_row(glue, name, train, test, labels, metric):
    task = load_task(name, glue)
    assert (len(task.train), len(task.test)) == (train, test)
    assert (task.labels, task.metric) == (labels, metric)
    assert [e.index for e in task.test] == list(range(test))
    assert {e.label for e in task.test} == set(range(len(labels))) or not labels
    assert all(e.text.strip() and (e.pair is None or e.pair.strip()) for e in task.test)
    assert (task.test[0].pair is not None) == (name in ("rte", "stsb"))


def test_sst2_and_rotten_tomatoes_share_texts_as_documented(glue, rotten):
    def letters(example):
        plain = unicodedata.normalize("NFKD", example.text).encode("ascii", "ignore").decode()
        return re.sub("[^a-z0-9]", "", plain.lower())

    reviews = {letters(e) for e in (*rotten.train, *rotten.test)}
    dev = [letters(e) for e in load_task("sst2", glue).test]
    assert sum(sentence in reviews for sentence in dev) == 731
    everything = "\n".join(reviews)
    assert sum(sentence in everything for sentence in dev) == 871


def test_quotes_in_glue_are_plain_characters(tmp_path):
    folder = tmp_path / "SST-2"
    folder.mkdir()
    for name in ("train", "dev"):
        (folder / f"{name}.tsv").write_text('sentence\tlabel\n"half a quote\t1\nplain " quote\t0\n')
    task = load_task("sst2", tmp_path)
    assert [e.text for e in task.test] == ['"half a quote', 'plain " quote']


def test_glue_without_folder_or_with_a_wrong_one_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"RTE/train\.tsv.*--data"):
        load_task("rte")
    with pytest.raises(InputError, match=r"cannot read .*RTE.train\.tsv: No such file"):
        load_task("rte", tmp_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("some text\t2", r"row 1 .*label '2' is none of 0, 1"),
        ("some text\t", r"row 1 .*no label in column 'label'"),
        ("some text", r"row 1 .*1 columns, but 2 are needed"),
    ],
)
def test_bad_glue_row_is_named(tmp_path, row, message):
    (tmp_path / "SST-2").mkdir()
    (tmp_path / "SST-2" / "train.tsv").write_text(f"sentence\tlabel\nfine\t0\n{row}\n")
    with pytest.raises(InputError, match=message):
        load_task("sst2", tmp_path)
