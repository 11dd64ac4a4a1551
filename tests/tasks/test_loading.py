from ntk_propulsion.tasks import Task, load_task
from ntk_propulsion.tasks.source import SOURCES, Source
from tests.tiny_folders import make_task


def test_everything_that_is_asked_for_reaches_the_source(tmp_path, monkeypatch):
    requests = []

    def load(request) -> Task:
        requests.append(request)
        return make_task()

    made_up = Source(load, lambda request: request.name == "made-up", ("made-up",))
    monkeypatch.setattr("ntk_propulsion.tasks.source.SOURCES", [*SOURCES, made_up])
    wanted = {
        "text_column": "a",
        "pair_column": "b",
        "label_column": "c",
        "kind": "regression",
        "test_file": tmp_path / "t.csv",
        "test_split": "dev",
        "seed": 3,
    }
    load_task("made-up", tmp_path, **wanted)
    assert vars(requests[0]) == {"name": "made-up", "data": tmp_path, **wanted}
