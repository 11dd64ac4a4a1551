"""python -m ntk_propulsion report: a folder drawn anew, or one line and status 2."""

import json
import shutil

import pytest

from ntk_propulsion.commands.command_line import run_command
from ntk_propulsion.commands.main import main
from tests import tiny_runs


@pytest.fixture
def folder(tmp_path):
    """A finished run without its page and figures."""
    copy = shutil.copytree(tiny_runs.finished(), tmp_path / "run")
    shutil.rmtree(copy / "figures")
    (copy / "report.html").unlink()
    return copy


def test_page_and_figures_are_drawn_anew_and_report_json_stays(folder, capfd):
    assert run_command(main, ["report", str(folder)]) == 0
    assert capfd.readouterr().out.strip() == str(folder / "report.html")
    finished = tiny_runs.finished()
    for name in ("report.json", "report.html"):
        assert (folder / name).read_bytes() == (finished / name).read_bytes()
    assert sorted(p.name for p in (folder / "figures").iterdir()) == sorted(
        p.name for p in (finished / "figures").iterdir()
    )


def test_json_goes_alone_to_stdout(folder, capfd):
    assert run_command(main, ["report", str(folder), "--json"]) == 0
    said = capfd.readouterr()
    assert said.out == (folder / "report.json").read_text()
    assert json.loads(said.out)["results"]["distances"]
    assert said.err == ""
    assert (folder / "report.html").exists()


def test_quiet_says_only_where_the_page_is(folder, capfd):
    assert run_command(main, ["report", str(folder), "--quiet"]) == 0
    said = capfd.readouterr()
    assert (said.out, said.err) == (f"{folder / 'report.html'}\n", "")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda d: (d / "report.json").unlink(), "name the folder of a finished run"),
        (lambda d: (d / "report.json").write_text("{"), "is not a report"),
        (lambda d: (d / "report.json").write_text('{"schema": 2}'), "not of a comparison"),
        (lambda d: (d / "kernels.safetensors").write_bytes(b"no"), "kernels.safetensors"),
        (lambda d: (d / "adapter.safetensors").unlink(), "adapter.safetensors"),
    ],
)
def test_a_damaged_or_foreign_folder_is_one_line_and_status_2(folder, spoil, said, capfd):
    spoil(folder)
    assert run_command(main, ["report", str(folder)]) == 2
    error = capfd.readouterr().err.strip()
    assert said in error
    assert len(error.splitlines()) == 1
    assert not (folder / "report.html").exists()


def test_a_folder_that_is_not_there_is_bad_input(tmp_path, capfd):
    assert run_command(main, ["report", str(tmp_path / "none"), "--json"]) == 2
    said = capfd.readouterr()
    assert said.out == ""
    assert "name the folder of a finished run" in said.err
