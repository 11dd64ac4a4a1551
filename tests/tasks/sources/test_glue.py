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


ROWS = {  # header and two rows of each task, and where the label stands
    "sst2": ("SST-2", "sentence\tlabel\n", ["fine\t{}", "dull\t{}"], ("1", "0")),
    "rte": (
        "RTE",
        "index\tsentence1\tsentence2\tlabel\n",
        ["0\ta\tb\t{}", "1\tc\td\t{}"],
        ("entailment", "not_entailment"),
    ),
    "cola": ("CoLA", "", ["gj04\t{}\t*\tA text.", "gj04\t{}\t\tTwo."], ("1", "0")),
    "stsb": (
        "STS-B",
        "index\tsentence1\tsentence2\tscore\n",
        ["0\ta\tb\t{}", "1\tc\td\t{}"],
        ("5.000", "0.5"),
    ),
}


def glue_folder(folder, name, *, dev=None, row=None):
    inside, header, rows, labels = ROWS[name]
    (folder / inside).mkdir()
    whole = [text.format(label) for text, label in zip(rows, labels, strict=True)]
    (folder / inside / "train.tsv").write_text(header + "\n".join(whole))
    last = row if row is not None else rows[1].format(dev)
    (folder / inside / "dev.tsv").write_text(header + "\n".join([whole[0], last]) + "\n")
    return folder


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("dev", ["-1", "-1.0", "", "?", "nan", "inf"])
def test_withheld_labels_in_a_glue_folder_are_refused_by_row(tmp_path, name, dev):
    with pytest.raises(InputError, match=r"dev\.tsv, row 1 \(counted from 0\): (no )?label"):
        load_task(name, glue_folder(tmp_path, name, dev=dev))


@pytest.mark.parametrize("name", ROWS)
def test_a_tab_in_a_glue_row_does_not_cut_a_text(tmp_path, name):
    row = ROWS[name][2][1].format(ROWS[name][3][1]) + "\tand more"
    with pytest.raises(InputError, match=r"dev\.tsv, row 1 .*columns, but \d+ are needed"):
        load_task(name, glue_folder(tmp_path, name, row=row))


@pytest.mark.parametrize("name", ROWS)
def test_a_glue_folder_of_two_rows_is_read(tmp_path, name):
    task = load_task(name, glue_folder(tmp_path, name, dev=ROWS[name][3][1]))
    assert [e.label for e in task.train] == [e.label for e in task.test]
    assert len({e.label for e in task.train}) == 2


def test_a_glue_test_file_in_the_place_of_dev_is_refused(tmp_path):
    folder = glue_folder(tmp_path, "sst2", dev="0")
    (folder / "SST-2" / "dev.tsv").write_text("index\tsentence\n0\tfine\n")
    with pytest.raises(InputError, match=r"dev\.tsv, row 0 .*column.*'label'"):
        load_task("sst2", folder)
