import pytest

from ntk_propulsion.commands.command_line import Interrupted
from ntk_propulsion.commands.place import Place
from ntk_propulsion.errors import InputError


def test_a_run_goes_where_it_is_told_or_into_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Place(str(tmp_path / "a")).held("name", {"n": 1}) as run:
        assert run.folder == tmp_path / "a"
    with Place().held("sst2-minilm", {"n": 1}) as run:
        assert run.folder.parent.name == "runs"
        assert run.folder.name.startswith("sst2-minilm-")
    assert not list(tmp_path.iterdir())  # nothing was begun


@pytest.mark.parametrize("how", [{"resume": True}, {"resume_anyway": True}])
def test_there_is_nothing_to_resume_without_a_folder(how):
    with pytest.raises(InputError, match="--resume needs --out"), Place(**how).held("name", {}):
        pass


def test_an_earlier_run_is_kept_shown_or_replaced(tmp_path):
    with Place(str(tmp_path)).held("name", {"n": 1}) as first:
        first.begin()
        (tmp_path / first.final).write_text("{}")
    with (
        pytest.raises(InputError, match="holds a finished run"),
        Place(str(tmp_path)).held("name", {"n": 1}),
    ):
        pass
    replaced = Place(str(tmp_path), overwrite=True)
    with replaced.held("name", {"n": 2}) as run:
        assert not replaced.holds(run)
    for how in ({"resume": True}, {"resume_anyway": True}):
        resumed = Place(str(tmp_path), **how)
        with resumed.held("name", {"n": 1}) as run:
            assert resumed.holds(run)


def stopped(place, *, begun):
    with place.held("name", {"n": 1}) as run:
        if begun:
            run.begin(overwrite=place.overwrite)
        raise KeyboardInterrupt


def test_an_interruption_says_how_to_go_on(tmp_path):
    with pytest.raises(Interrupted, match="the same command does it again"):
        stopped(Place(str(tmp_path / "a")), begun=False)
    said = f"--resume --out {tmp_path / 'a'} finishes it"
    with pytest.raises(Interrupted, match=said):
        stopped(Place(str(tmp_path / "a")), begun=True)
    with pytest.raises(Interrupted, match="in place of --overwrite finishes it"):
        stopped(Place(str(tmp_path / "a"), overwrite=True), begun=True)
    with pytest.raises(Interrupted, match=said):
        stopped(Place(str(tmp_path / "a"), resume=True), begun=True)


def test_what_goes_on_under_other_conditions_says_so(tmp_path, capsys, monkeypatch):
    with Place(str(tmp_path)).held("name", {"n": 1}) as run:
        run.begin()
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    with (
        pytest.raises(InputError, match=r"MKL_CBWR was not there, is C.*--resume-anyway"),
        Place(str(tmp_path), resume=True).held("name", {"n": 1}),
    ):
        pass
    with Place(str(tmp_path), resume_anyway=True).held("name", {"n": 1}):
        pass
    assert capsys.readouterr().err.startswith("note: ")
