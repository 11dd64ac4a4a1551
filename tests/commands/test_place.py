import pytest

from ntk_propulsion.commands.place import Place
from ntk_propulsion.errors import InputError


def test_a_run_goes_where_it_is_told_or_into_a_folder_of_its_own(tmp_path):
    assert Place(str(tmp_path / "a")).run("name", {"n": 1}).folder == tmp_path / "a"
    own = Place().run("sst2-minilm", {"n": 1}).folder
    assert own.parent.name == "runs"
    assert own.name.startswith("sst2-minilm-")


def test_there_is_nothing_to_resume_without_a_folder():
    with pytest.raises(InputError, match="--resume needs --out"):
        Place(resume=True).run("name", {})


def test_an_earlier_run_is_kept_shown_or_replaced(tmp_path):
    first = Place(str(tmp_path)).run("name", {"n": 1})
    first.begin()
    (tmp_path / first.final).write_text("{}")
    with pytest.raises(InputError, match="holds a finished run"):
        Place(str(tmp_path)).run("name", {"n": 1})
    replaced = Place(str(tmp_path), overwrite=True)
    assert not replaced.holds(replaced.run("name", {"n": 2}))
    resumed = Place(str(tmp_path), resume=True)
    assert resumed.holds(resumed.run("name", {"n": 1}))
