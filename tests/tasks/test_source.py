import pytest

from ntk_propulsion.errors import InputError
from ntk_propulsion.tasks import known_tasks, load_task, reads_folder, register
from ntk_propulsion.tasks.source import SOURCES, Request, source_of
from tests.tiny_folders import make_task


@pytest.fixture
def registry(monkeypatch):
    """A registry that forgets afterwards."""
    monkeypatch.setattr("ntk_propulsion.tasks.source.SOURCES", list(SOURCES))


def test_unknown_task_names_near_matches():
    with pytest.raises(InputError, match="did you mean rotten-tomatoes"):
        load_task("roten-tomatoes")


@pytest.mark.usefixtures("registry")
def test_a_registered_source_is_listed_and_loads_by_name():
    @register("made-up")
    def load(request):
        return make_task(n=request.seed)

    assert "made-up" in known_tasks()
    assert len(load_task("made-up", seed=6).train) == 6


def test_names_stand_before_forms():
    known = known_tasks()
    first = min(known.index(form) for form in ("FILE.csv", "hub:NAME"))
    assert {name for source in SOURCES for name in source.names} == set(known[:first])


def test_a_file_called_like_a_task_does_not_hide_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "imdb").write_text("text,label\n")
    assert source_of(Request("imdb")) is not source_of(Request("./imdb"))


def test_each_named_task_has_exactly_one_source(tmp_path):
    for name in {name for source in SOURCES for name in source.names}:
        for data in (None, tmp_path):
            assert sum(source.takes(Request(name, data)) for source in SOURCES) == 1


def test_tasks_of_a_package_alone_are_read_from_no_folder():
    assert not reads_folder("imdb")
    assert all(reads_folder(name) for name in ("cola", "stsb", "hub:owner/set"))
