import pytest

from ntk_propulsion.tasks import load_task
from tests.tasks.tables import write


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


def test_test_file_is_the_test_split(tmp_path):
    rows = [{"text": f"t{i}", "label": i % 2} for i in range(6)]
    train, test = write(tmp_path / "a.csv", rows), write(tmp_path / "b.jsonl", rows[:3])
    for names in ((train, test), (str(train), str(test))):
        task = load_task(names[0], test_file=names[1])
        assert (len(task.train), len(task.test)) == (6, 3)
