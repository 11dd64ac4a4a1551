import json
from dataclasses import dataclass

import pytest

from ntk_propulsion.errors import InputError
from ntk_propulsion.runs.folder import Run, default_folder


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


@pytest.mark.parametrize("settings", [None, 3, [], "x"])
def test_a_run_without_settings_is_damaged_in_one_line(tmp_path, settings):
    content = {"format": "ntk_propulsion.run/1"} | (
        {} if settings is None else {"settings": settings}
    )
    (tmp_path / "run.json").write_text(json.dumps(content))
    for flags in ({"overwrite": False, "resume": True}, {"overwrite": False, "resume": False}):
        with pytest.raises(InputError, match="holds no settings"):
            Run(tmp_path, {"x": 1}).check(**flags)


def test_a_run_of_a_long_name_has_a_folder_that_a_disk_takes():
    assert len(default_folder("x" * 5000).name) < 200
