import json

import pytest

from ntk_propulsion.errors import InputError
from ntk_propulsion.tasks import load_task
from tests.tasks.tables import write


@pytest.mark.parametrize(
    ("labels", "kind", "names"),
    [
        ([i / 7 for i in range(40)], "regression", ()),
        (["1.0", "0", "1", "0.0"], "classification", ("0", "1")),
        ([10, 9, 10, 9], "classification", ("9", "10")),
        ([0.5, 1, 0.5, 1, 0.5, 1], "classification", ("0.5", "1")),
        ([2**53, 2**53 + 1], "classification", (str(2**53), str(2**53 + 1))),
        (["1_0", "10", "01", "1"], "classification", ("01", "1", "10", "1_0")),
        (["inf", "fin"], "classification", ("fin", "inf")),
        ([True, False], "classification", ("False", "True")),
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
        ([{"text": "a", "label": 0}, {"label": 1}], {}, "row 1 .*column .*'text': known: label"),
        ([{"text": "a", "label": 0}, {}], {}, "row 1 .*'text': known: none$"),
        ([{"text": "a", "label": 0}, {"text": "a"}], {}, "row 1 .*column .*'label': known: text"),
        ([{"text": "a", "label": [0]}], {}, "row 0 .*a list is no label"),
        ([{"text": "a", "label": {"a": 0}}], {}, "row 0 .*an object is no label"),
        ([{"text": ["a"], "label": 0}], {}, "row 0 .*column 'text' holds a value of type list"),
        ([{"text": True, "label": 0}], {}, "row 0 .*column 'text' holds a value of type bool"),
        ([{"text": "\ud83d", "label": 0}], {}, "row 0 .*column 'text' holds half a surrogate"),
        ([{"text": "a\0", "label": 0}], {}, "row 0 .*column 'text' holds a NUL"),
        ([{"text": "a", "label": "\ud83d"}], {}, r"row 0 .*U\+D83D"),
        ([{"text": "a", "label": float("nan")}], {}, "row 0 .*no label in column"),
        (
            [{"text": "a", "label": 1}, {"text": "b", "label": float("inf")}],
            {},
            "row 1 .*'Infinity'",
        ),
        (
            [{"text": "a", "label": 1}, {"text": "b", "label": "-inf"}],
            {},
            "row 1 .*'-inf' is not a",
        ),
        ([{"text": "a", "\ud83dn\n": 1}], {}, r"'label': known: '.*ud83dn.*', text"),
        (
            [{"text": "a", "label": 1}],
            {"label_column": "text"},
            "cannot hold both texts and labels",
        ),
        ([{"text": "a", "label": 1}], {"kind": "regresion"}, "did you mean regression"),
    ],
)
def test_bad_file_is_refused_in_one_line_that_says_where(tmp_path, rows, options, message):
    path = write(tmp_path / "d.jsonl", rows)
    with pytest.raises(InputError, match=message) as caught:
        load_task(str(path), **options)
    assert "\n" not in str(caught.value)


def test_a_number_of_any_length_is_a_label_or_refused_by_row(tmp_path):
    path = tmp_path / "d.jsonl"
    lines = [f'{{"text": "t{i}", "label": {str(i % 2) * 5000}}}' for i in range(4)]
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"row 0 .*not JSON") as caught:
        load_task(str(path))  # 000 is no number in JSON
    path.write_text("\n".join(line.replace("0", "2") for line in lines))
    with pytest.raises(InputError, match=r"row 0 .*label '2+\.\.\.' is not a finite") as caught:
        load_task(str(path))
    assert len(str(caught.value)) < 300
    path.write_text("\n".join(f'{{"text": "t{i}", "label": {10**200 + i % 2}}}' for i in range(6)))
    assert load_task(str(path)).labels == (str(10**200), str(10**200 + 1))
    path.write_text("\n".join(f'{{"text": {"7" * 5000}, "label": {i % 2}}}' for i in range(20)))
    assert {e.text for e in load_task(str(path)).train} <= {"7" * 5000}


@pytest.mark.parametrize("gap", ["N/A", "?", "1_5", "0,5"])
def test_a_gap_among_targets_does_not_make_each_target_a_class(tmp_path, gap):
    rows = [{"text": f"t{i}", "label": i / 7} for i in range(30)]
    path = write(tmp_path / "d.jsonl", [*rows, {"text": "t", "label": gap}])
    with pytest.raises(InputError, match=f"row 30 .*'{gap.replace('?', '.')}' is not a finite"):
        load_task(str(path))


TRAIN = {
    "two": [0, 1] * 5,
    "words": ["yes", "no"] * 5,
    "targets": [i / 7 for i in range(30)],
    "signed targets": [i / 7 - 2 for i in range(30)],
    "signed": [-1, 1] * 5,
}


def with_test(tmp_path, labels, test):
    for name, values in (("train", labels), ("test", test)):
        rows = [{"text": f"{name} {i}", "label": y} for i, y in enumerate(values)]
        write(tmp_path / f"{name}.jsonl", rows)
    return load_task(str(tmp_path / "train.jsonl"), test_file=tmp_path / "test.jsonl")


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        ("two", [0, 1, -1], "row 2 .*'-1' is none of 0, 1, which stands where labels are withheld"),
        ("two", [-1, -1], "row 0 .*'-1' is none of 0, 1"),
        ("two", ["-1.0", -1], "row 0 .*'-1' is none of 0, 1"),
        ("two", [0, 2], "row 1 .*'2' is none of 0, 1$"),
        ("two", [0, -100], "row 1 .*'-100' is none of 0, 1$"),
        ("words", ["yes", "-1"], "row 1 .*'-1' is none of no, yes, which"),
        ("words", ["yes", "Yes"], "row 1 .*'Yes' is none of no, yes$"),
        ("targets", [0.5, -1], "row 1 .*'-1', which stands where labels are withheld"),
        ("targets", [-1.0, -1.0], "row 0 .*'-1', which stands where"),
    ],
)
def test_labels_of_a_test_split_are_those_of_the_train_split(tmp_path, train, test, said):
    with pytest.raises(InputError, match=rf"test\.jsonl, {said}"):
        with_test(tmp_path, TRAIN[train], test)


@pytest.mark.parametrize(
    ("train", "test"),
    [("two", [1, 1]), ("signed", [-1, 1]), ("signed targets", [-1, 0.5]), ("targets", [-0.5, 9])],
)
def test_labels_that_train_and_test_share_are_kept(tmp_path, train, test):
    task = with_test(tmp_path, TRAIN[train], test)
    found = [task.labels[e.label] if task.labels else e.label for e in task.test]
    assert [float(label) for label in found] == test


def test_an_error_lists_few_of_many_columns_and_classes(tmp_path):
    row = {f"column {i}": i for i in range(5000)}
    (tmp_path / "d.jsonl").write_text(json.dumps(row))
    with pytest.raises(InputError, match="did you mean column 4321") as caught:
        load_task(str(tmp_path / "d.jsonl"), text_column="column 4321 ")
    assert len(str(caught.value)) < 300
    with pytest.raises(InputError, match=r"'x' is none of 0, 1, 2.*, \.\.\.$"):
        with_test(tmp_path, range(100), ["x"])
