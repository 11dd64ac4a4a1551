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
