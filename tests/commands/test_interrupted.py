"""Commands on folders of runs that were interrupted, are under way, or began elsewhere."""

import functools
import json
import os
import shutil
from pathlib import Path

import pytest

from ntk_propulsion.commands.audit import audit
from ntk_propulsion.commands.command_line import run_command
from ntk_propulsion.commands.compare import compare
from ntk_propulsion.commands.main import main
from ntk_propulsion.experiment import experiment
from ntk_propulsion.report import audit_writer, writer
from ntk_propulsion.runs.lock import LOCK, locked
from tests import tiny_runs
from tests.auditing import tuned

SHORT = {"steps": 2, "examples": 6, "tunings": ("bitfit",), "head": "random"}


class Killed(BaseException):
    """Stands for whatever ends a process; nothing catches it."""


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Leave the figures out: they take most of a tiny run's time."""
    monkeypatch.setattr(writer, "draw_experiment", lambda *_: {})
    monkeypatch.setattr(audit_writer, "draw_audit", lambda *_: {})


def compared(out, *more):
    return tiny_runs.run(out, "--quiet", *more, **SHORT)


@functools.cache
def adapter() -> Path:
    return tuned.adapter(tiny_runs.scratch() / "adapter.safetensors")


def audited(out, *more):
    line = ["--base", tuned.base(), "--tuned", adapter(), "--out", out, "--quiet", *more]
    return run_command(audit, [str(word) for word in line])


@pytest.fixture(params=[compared, audited])
def command(request):
    """A command that keeps a folder."""
    return request.param


def one_line(capfd):
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1, said.err
    assert len(said.err) < 500
    return said.err


@functools.cache
def killed() -> Path:
    """Return a comparison killed once its kernels before training were there; not to be changed."""

    def die(*_):
        raise Killed

    out = tiny_runs.scratch() / "killed"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment._Experiment, "_tune", die)
        with pytest.raises(Killed):
            compared(out)
    assert (out / "steps" / "theta0.json").exists()
    return out


@pytest.fixture
def interrupted(tmp_path):
    """A copy of `killed`'s folder."""
    return shutil.copytree(killed(), tmp_path / "out")


@functools.cache
def finished(do) -> Path:
    """Return the folder of a finished run of a command; not to be changed."""
    out = tiny_runs.scratch() / f"finished-{do.__name__}"
    assert do(out) == 0
    return out


@pytest.fixture
def done(command, tmp_path):
    """A copy of a finished run's folder."""
    return shutil.copytree(finished(command), tmp_path / "out")


def changed(folder, **values):
    """Have a run begun under other conditions."""
    found = json.loads((folder / "run.json").read_text())
    found["conditions"] |= values
    (folder / "run.json").write_text(json.dumps(found))


# -- what a kill leaves


@pytest.mark.parametrize("flags", [(), ("--resume",), ("--overwrite",)])
def test_a_folder_that_a_kill_left_before_it_was_one_is_taken(tmp_path, flags):
    out = tmp_path / "out"
    out.mkdir()
    for name in (".run.json.1234", ".run.json.99999", LOCK):
        (out / name).write_text("half")
    assert audited(out, *flags) == 0
    assert (out / "report.json").exists()
    assert not list(out.rglob(".*"))


def test_what_is_left_beside_a_finished_run_goes_when_it_is_shown_or_drawn(done, command):
    out = done
    report = (out / "report.json").read_bytes()
    for line in (lambda: command(out, "--resume"), lambda: run_command(main, ["report", str(out)])):
        (out / "steps").mkdir()
        (out / "steps" / "theta0.json").write_text("{}")
        (out / ".report.json.7").write_text("half")
        assert line() == 0
        assert not (out / "steps").exists()
        assert not list(out.rglob(".*"))
        assert (out / "report.json").read_bytes() == report


def test_figures_and_arrays_of_an_earlier_report_do_not_survive(done, command):
    out = done
    (out / "report.json").unlink()
    (out / "figures").mkdir(exist_ok=True)
    (out / "figures" / "of_another_version.png").write_bytes(b"old")
    assert command(out, "--resume") == 0
    assert not list((out / "figures").iterdir())


def test_a_drawing_anew_that_is_killed_keeps_the_report(done, monkeypatch):
    out = done
    report = (out / "report.json").read_bytes()
    replace = os.replace

    def die(source, target):
        if str(target).endswith("report.html"):
            raise Killed
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die)
        with pytest.raises(Killed):
            run_command(main, ["report", str(out)])
    assert (out / "report.json").read_bytes() == report
    assert run_command(main, ["report", str(out)]) == 0


# -- two at once


def test_a_folder_in_use_is_refused_to_all(done, command, capfd):
    out = done
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    capfd.readouterr()
    with locked(out / LOCK, out):
        for flags in ((), ("--resume",), ("--overwrite",)):
            assert command(out, *flags) == 2
            assert f"{out} is in use by process {os.getpid()}" in one_line(capfd)
        assert run_command(main, ["report", str(out)]) == 2
        assert "is in use by" in one_line(capfd)
        (out / LOCK).unlink()
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_a_finished_run_that_cannot_be_written_to_is_shown(done, command, monkeypatch):
    out = done
    real = os.open

    def read_only(path, flags, *more, **others):
        if flags & os.O_CREAT:
            raise OSError(30, "Read-only file system")
        return real(path, flags, *more, **others)

    monkeypatch.setattr(os, "open", read_only)
    assert command(out, "--resume") == 0


# -- other conditions


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"threads": 64}, "threads was 64, is 1"),
        ({"sources": "0000"}, "sources was 0000, is "),
        ({"libraries": {"torch": "1.0"}}, "and "),
        ({"instructions": "AVX9"}, "instructions was AVX9, is "),
        ({"precision": "medium"}, "precision was medium, is highest"),
    ],
)
def test_a_run_begun_under_other_conditions_is_refused(interrupted, capfd, values, said):
    changed(interrupted, **values)
    capfd.readouterr()
    assert compared(interrupted, "--resume") == 2
    error = one_line(capfd)
    assert said in error
    assert "--resume-anyway" in error
    assert "--overwrite" in error


def test_it_goes_on_if_told_and_its_report_says_so(interrupted, capfd):
    changed(interrupted, threads=64)
    capfd.readouterr()
    assert compared(interrupted, "--resume-anyway") == 0
    assert capfd.readouterr().err.startswith("note: ")
    found = tiny_runs.report(interrupted)
    assert found["environment"]["resumed"] == ["threads was 64, is 1"]
    assert "threads was 64, is 1" in found["results"]["notes"][-1]
    assert "threads was 64, is 1" in (interrupted / "report.html").read_text()
    assert compared(interrupted, "--resume") == 0  # finished: shown


def test_another_processor_is_said_and_no_reason_to_refuse(interrupted, capfd):
    changed(interrupted, processor="of another make")
    capfd.readouterr()
    assert compared(interrupted, "--resume") == 0
    assert "processor was of another make" in capfd.readouterr().err
    assert "processor" in tiny_runs.report(interrupted)["results"]["notes"][-1]


def test_the_same_conditions_are_no_matter(interrupted, capfd):
    capfd.readouterr()
    assert compared(interrupted, "--resume") == 0
    assert capfd.readouterr().err == ""
    assert tiny_runs.report(interrupted)["environment"]["resumed"] == []


@pytest.mark.parametrize(
    "content",
    [
        {"format": "ntk_propulsion.run/1"},
        {"format": "ntk_propulsion.run/2", "settings": None},
        {"format": "ntk_propulsion.run/2", "settings": {}, "conditions": {"threads": "many"}},
        {"format": "ntk_propulsion.run/1", "settings": {}, "earlier": {}},
    ],
)
@pytest.mark.parametrize("flags", [(), ("--resume",), ("--resume-anyway",)])
def test_a_damaged_run_json_is_one_line(tmp_path, capfd, command, content, flags):
    out = tmp_path / "out"
    out.mkdir()
    (out / "run.json").write_text(json.dumps(content))
    assert command(out, *flags) == 2
    assert "run.json is damaged" in one_line(capfd)


def test_bad_input_leaves_no_folder_behind(tmp_path):
    assert run_command(compare, tiny_runs.arguments(tmp_path / "a" / "b", examples=10_000)) == 2
    assert not list(tmp_path.iterdir())
