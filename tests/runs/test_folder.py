import json
import os
from dataclasses import dataclass

import pytest

from ntk_propulsion.errors import InputError
from ntk_propulsion.runs.folder import OtherConditions, Run, default_folder, tidied
from ntk_propulsion.runs.lock import LOCK


def begun(folder, **settings):
    run = Run(folder, settings)
    run.begin()
    return run


def test_a_new_run_needs_no_folder_and_touches_none_by_checking(tmp_path):
    run = Run(tmp_path / "a" / "b", {"x": 1})
    run.check(overwrite=False, resume=False)
    assert not (tmp_path / "a").exists()
    run.begin()
    assert json.loads((tmp_path / "a" / "b" / "run.json").read_text())["settings"] == {"x": 1}
    assert not run.complete


def test_an_empty_folder_will_do(tmp_path):
    Run(tmp_path, {}).check(overwrite=False, resume=False)


def test_resuming_where_nothing_is_starts(tmp_path):
    Run(tmp_path / "new", {}).check(overwrite=False, resume=True)


def test_a_finished_step_is_not_done_again(tmp_path):
    run = begun(tmp_path)
    assert run.step("a", lambda: {"pair": (1, 2)}) == {"pair": [1, 2]}
    again = begun(tmp_path)
    assert again.step("a", lambda: pytest.fail("done already")) == {"pair": [1, 2]}
    assert again.seconds == run.seconds
    assert again.seconds["a"] >= 0


@dataclass(frozen=True)
class Found:
    name: str
    values: tuple[float | None, ...]


def test_a_step_gives_the_dataclass_that_it_gave_before(tmp_path):
    first = begun(tmp_path).step("a", lambda: Found("x", (1.0, float("nan"))), Found)
    assert first == Found("x", (1.0, None))  # as it will be when it is read back
    again = begun(tmp_path).step("a", lambda: pytest.fail("done already"), Found)
    assert again == first


def test_a_step_of_another_form_is_damaged(tmp_path):
    run = begun(tmp_path)
    run.step("a", lambda: {"name": 1})
    with pytest.raises(InputError, match=r"a\.json is damaged"):
        run.step("a", lambda: pytest.fail("done already"), Found)


def test_a_step_that_fails_is_not_done(tmp_path):
    run = begun(tmp_path)

    def fail():
        run.path("half.bin").parent.mkdir(exist_ok=True)
        run.path("half.bin").write_bytes(b"half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        run.step("a", fail)
    assert run.step("a", lambda: {"ok": True}) == {"ok": True}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"result": 1}', "null"])
def test_a_damaged_step_is_named(tmp_path, content):
    run = begun(tmp_path)
    run.path("a.json").parent.mkdir()
    run.path("a.json").write_text(content)
    with pytest.raises(InputError, match=r"a\.json is damaged"):
        run.step("a", dict)


def test_only_the_same_settings_are_resumed(tmp_path):
    begun(tmp_path, a=1, b=(1, 2))
    Run(tmp_path, {"b": [1, 2], "a": 1}).check(overwrite=False, resume=True)
    with pytest.raises(InputError, match="a was 1, is 2"):
        Run(tmp_path, {"a": 2, "b": (1, 2)}).check(overwrite=False, resume=True)
    with pytest.raises(InputError, match="c was None, is 3"):
        Run(tmp_path, {"a": 1, "b": (1, 2), "c": 3}).check(overwrite=False, resume=True)


def test_an_interrupted_run_is_called_so(tmp_path):
    begun(tmp_path)
    with pytest.raises(InputError, match="an interrupted run"):
        Run(tmp_path, {}).check(overwrite=False, resume=False)
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(InputError, match="a finished run"):
        Run(tmp_path, {}).check(overwrite=False, resume=False)


def test_overwriting_removes_what_runs_write_and_nothing_else(tmp_path):
    run = begun(tmp_path, a=1)
    run.step("one", dict)
    for name in ("report.json", "report.html", "kernels.safetensors", "adapter.safetensors",
                 "figures/x.png", "steps/training/x", "figures/mine.svg", "mine.txt"):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    other = Run(tmp_path, {"a": 2})
    other.check(overwrite=True, resume=False)
    assert (tmp_path / "report.json").exists()
    other.begin(overwrite=True)
    left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert left == {"run.json", "figures/mine.svg", "mine.txt"}
    assert json.loads((tmp_path / "run.json").read_text())["settings"] == {"a": 2}


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"settings": {}}', '{"format": "x", "settings": {}}']
)
def test_another_programs_run_json_is_not_ours(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    for overwrite, resume in ((False, False), (True, False), (False, True)):
        with pytest.raises(InputError, match="not of a run"):
            Run(tmp_path, {}).check(overwrite=overwrite, resume=resume)


def test_steps_go_when_the_report_is_there_and_not_before(tmp_path):
    run = begun(tmp_path)
    run.step("a", dict)
    run.clean()
    assert run.path("a.json").exists()
    (tmp_path / "report.json").write_text('{"results": 1}')
    run.clean()
    assert not run.path("a.json").parent.exists()
    assert run.complete
    assert run.report() == {"results": 1}


def test_a_damaged_report_is_named(tmp_path):
    run = begun(tmp_path)
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(InputError, match=r"report\.json is damaged"):
        run.report()


# -- what a kill leaves


def names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "left", [(".run.json.1234",), (LOCK,), (LOCK, ".run.json.1", ".run.json.2")]
)
@pytest.mark.parametrize("how", [{}, {"overwrite": True}, {"resume": True}])
def test_a_folder_with_nothing_but_what_a_kill_left_is_taken_by_all(tmp_path, left, how):
    for name in left:
        (tmp_path / name).write_text("half")
    run = Run(tmp_path, {"n": 1})
    with run.held(**how):
        run.begin(overwrite=how.get("overwrite", False))
    assert names(tmp_path) == {"run.json"}


@pytest.mark.parametrize(
    "mine", ["notes.txt", ".notes.txt.1234", ".run.json.swp", "report.json", ".report.json.1234"]
)
def test_a_folder_with_anything_else_is_not(tmp_path, mine):
    (tmp_path / ".run.json.1234").write_text("half")
    (tmp_path / mine).write_text("mine")
    for how in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(InputError, match="not of a run"), Run(tmp_path, {}).held(**how):
            pass
    assert names(tmp_path) == {".run.json.1234", mine}


def test_half_written_files_of_a_run_go_and_those_of_others_stay(tmp_path):
    run = begun(tmp_path)
    run.step("a", dict)
    half = {".run.json.1", ".report.json.22", "figures/.x.png.3", "steps/.a.json.4",
            "steps/training-full/.state.json.5", "steps/.trajectory-full.6/points/1.json",
            "trajectories/.full.7/trajectory.json", ".kernels.safetensors.8"}  # fmt: skip
    others = {".notes.txt.1", "figures/.mine.svg.1", ".hidden", "steps.txt"}
    for name in half | others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("half")
    again = Run(tmp_path, {})
    with again.held(resume=True):
        again.begin()
        assert names(tmp_path) == {"run.json", "steps/a.json", LOCK, *others}
        again.step("a", lambda: pytest.fail("done already"))


def test_showing_a_finished_run_removes_the_steps_that_a_kill_left(tmp_path):
    run = begun(tmp_path)
    run.step("a", dict)
    (tmp_path / "report.json").write_text("{}")
    (tmp_path / ".report.html.12").write_text("half")
    with Run(tmp_path, {}).held(resume=True):
        pass
    assert names(tmp_path) == {"run.json", "report.json"}
    run.path("a.json").parent.mkdir()
    with tidied(tmp_path):
        assert names(tmp_path) == {"run.json", "report.json", LOCK}
    assert not (tmp_path / "steps").exists()
    assert names(tmp_path) == {"run.json", "report.json"}


def test_a_folder_that_is_not_of_a_run_is_not_tidied(tmp_path):
    (tmp_path / "steps").mkdir()
    (tmp_path / "report.json").write_text("{}")
    with tidied(tmp_path):
        pass
    assert names(tmp_path) == {"report.json"}
    assert (tmp_path / "steps").is_dir()
    with tidied(tmp_path / "none"):
        pass
    assert not (tmp_path / "none").exists()


def test_an_overwriting_that_is_killed_can_be_done_again(tmp_path, monkeypatch):
    """The folder is that of the old run or of the new one, never of neither."""
    begun(tmp_path, n=1).step("a", dict)
    (tmp_path / "mine.txt").write_text("mine")

    def die(*_):
        raise SystemExit

    for name in ("replace", "fsync"):
        other = Run(tmp_path, {"n": 2})
        with monkeypatch.context() as patch:
            patch.setattr(os, name, die)
            with pytest.raises(SystemExit):
                other.begin(overwrite=True)
        with pytest.raises(InputError, match="n was 1, is 2"):
            other.check(overwrite=False, resume=True)
    with other.held(overwrite=True):
        other.begin(overwrite=True)
    assert names(tmp_path) == {"run.json", "mine.txt"}


def test_two_at_once_are_refused_whatever_they_want(tmp_path):
    run = Run(tmp_path / "out", {})
    with run.held():
        for how in ({}, {"overwrite": True}, {"resume": True}):
            with (
                pytest.raises(InputError, match="in use by"),
                Run(tmp_path / "out", {}).held(**how),
            ):
                pass
        run.begin()
        with pytest.raises(InputError, match="in use by"), Run(tmp_path / "out", {}).held():
            pass
    with Run(tmp_path / "out", {}).held(resume=True):
        pass


def test_what_is_held_and_not_begun_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), Run(tmp_path / "a" / "b", {}).held():
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


# -- other conditions


def changed(folder, **values):
    """Have a run begun under other conditions."""
    found = json.loads((folder / "run.json").read_text())
    found["conditions"] |= values
    (folder / "run.json").write_text(json.dumps(found))


def gone_on(folder, **how):
    run = Run(folder, {})
    with run.held(resume=True, **how):
        run.begin()
    return run


def test_other_conditions_are_refused_unless_told_and_remembered(tmp_path):
    begun(tmp_path)
    changed(tmp_path, threads=99, sources="abc")
    with pytest.raises(OtherConditions, match=r"sources was abc, is .*, threads was 99, is 1; "):
        gone_on(tmp_path)
    run = gone_on(tmp_path, anyway=True)
    assert run.notes
    assert "threads was 99, is 1" in run.resumed
    again = gone_on(tmp_path)  # its conditions are now those of here
    assert not again.notes
    assert again.resumed == run.resumed  # and what was mixed stays so
    Run(tmp_path, {}).begin(overwrite=True)
    assert gone_on(tmp_path).resumed == ()


def test_another_processor_is_noted_and_goes_on(tmp_path):
    begun(tmp_path)
    changed(tmp_path, processor="of another make")
    run = gone_on(tmp_path)
    assert "processor was of another make" in run.notes[0]
    assert run.resumed[0].startswith("processor was of another make")


def test_an_interrupted_run_of_a_version_that_recorded_nothing_is_refused_unless_told(tmp_path):
    old = {"format": "ntk_propulsion.run/1", "settings": {}}
    (tmp_path / "run.json").write_text(json.dumps(old))
    with pytest.raises(OtherConditions, match="did not record"):
        gone_on(tmp_path)
    assert gone_on(tmp_path, anyway=True).resumed
    (tmp_path / "run.json").write_text(json.dumps(old))
    (tmp_path / "report.json").write_text("{}")
    with Run(tmp_path, {}).held(resume=True):  # finished: shown, whatever it was made with
        pass


def test_a_damaged_run_json_is_one_line_and_may_be_overwritten(tmp_path):
    (tmp_path / "run.json").write_text('{"format": "ntk_propulsion.run/2"}')
    for how in ({}, {"resume": True}):
        with (
            pytest.raises(InputError, match=r"run\.json is damaged"),
            Run(tmp_path, {}).held(**how),
        ):
            pass
    run = Run(tmp_path, {"n": 1})
    with run.held(overwrite=True):
        run.begin(overwrite=True)
    assert json.loads((tmp_path / "run.json").read_text())["settings"] == {"n": 1}


def test_settings_of_a_stranger_stay_short(tmp_path):
    begun(tmp_path, **{"a" * 5000: "x", "b": "y" * 5000, "\x1b[31m": 1, "d": 2})
    with pytest.raises(InputError) as refused:
        Run(tmp_path, {}).check(overwrite=False, resume=True)
    said = str(refused.value).replace(str(tmp_path), "")
    assert said.isprintable()
    assert len(said) < 250


@pytest.mark.parametrize("settings", [None, 3, [], "x"])
def test_a_run_without_settings_is_damaged_in_one_line(tmp_path, settings):
    content = {"format": "ntk_propulsion.run/1"} | (
        {} if settings is None else {"settings": settings}
    )
    (tmp_path / "run.json").write_text(json.dumps(content))
    for flags in ({"overwrite": False, "resume": True}, {"overwrite": False, "resume": False}):
        with pytest.raises(InputError, match="is damaged"):
            Run(tmp_path, {"x": 1}).check(**flags)


def test_a_run_of_a_long_name_has_a_folder_that_a_disk_takes():
    assert len(default_folder("x" * 5000).name) < 200
