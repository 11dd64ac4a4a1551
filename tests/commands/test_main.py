"""python -m ntk_propulsion: leads to every command, imports none; all commands agree."""

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from analysis.__main__ import everything
from analysis.framework.claims import claims
from analysis.framework.command import main as run_study
from analysis.framework.options import Settings
from ntk_propulsion.commands.audit import audit
from ntk_propulsion.commands.command_line import run_command
from ntk_propulsion.commands.compare import compare
from ntk_propulsion.commands.convert import convert
from ntk_propulsion.commands.main import COMMANDS, main
from ntk_propulsion.commands.options import flag, options_of
from ntk_propulsion.commands.report import report
from ntk_propulsion.report import writer
from ntk_propulsion.runs.options import MEANINGS
from tests import tiny_runs
from tests.analysis.framework.test_study import made

ROOT = Path(__file__).parents[2]
EVERY = {
    "compare": compare,
    "audit": audit,
    "report": report,
    "convert": convert,
    "analysis": everything,
}

ALONE = """
import sys
from ntk_propulsion.commands.main import main
from ntk_propulsion.commands.command_line import run_command
assert run_command(main, ["--help"]) == 0
print(sorted({"torch", "transformers", "matplotlib"} & sys.modules.keys()))
"""


def options(command):
    return {option.opts[0][2:]: option for option in command.params if option.opts[0][0] == "-"}


def test_the_help_names_every_command_and_the_studies(capfd):
    for arguments in ([], ["--help"]):
        assert run_command(main, arguments) == 0
        said = " ".join(capfd.readouterr().out.split())
        assert all(f"{name} {words}" in said for name, words in COMMANDS.items())
        assert "python -m analysis" in said


def test_the_group_says_of_each_command_what_its_own_help_begins_with():
    found = {name: command for name, command in EVERY.items() if name != "analysis"}
    assert found.keys() == COMMANDS.keys()
    for name, command in found.items():
        assert command.help.split("\n\n")[0].replace("\n", " ") == COMMANDS[name]


def test_the_group_and_its_help_need_no_torch():
    done = subprocess.run(
        [sys.executable, "-c", ALONE], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "Commands:" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_command_of_the_group_is_the_module(capfd):
    context = click.Context(main)
    for name, command in EVERY.items():
        if name != "analysis":
            assert main.get_command(context, name) is command
    assert run_command(main, ["compare", "--degree", "0"]) == 2
    grouped = capfd.readouterr().err
    assert run_command(compare, ["--degree", "0"]) == 2
    assert capfd.readouterr().err == grouped
    assert grouped.startswith("error: degree 0")
    assert run_command(main, ["convert", "--to"]) == 2
    assert capfd.readouterr().err.count("\n") == 1


def test_an_unknown_command_is_one_line_that_names_the_nearest(capfd):
    assert run_command(main, ["comparee"]) == 2
    assert capfd.readouterr().err == "error: unknown command 'comparee': did you mean compare?\n"


def test_a_process_leads_to_a_command_with_its_exit_status(tmp_path):
    line = [sys.executable, "-m", "ntk_propulsion", "audit", "--base", "minilm", "--tuned", "x"]
    done = subprocess.run(
        [*line, "--out", str(tmp_path / "out"), "--quiet"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", [name for name in EVERY if name != "report"])
def test_options_of_one_name_mean_the_same_in_every_command(name):
    found = options(EVERY[name])
    assert {"json", "quiet", "out", "overwrite"} <= found.keys()
    shared = {flag(name)[2:]: words for name, words in MEANINGS.items() if "{" not in words}
    for option in found.keys() & shared.keys() - {"out" if name == "convert" else ""}:
        assert found[option].help.startswith(shared[option]), option
    for option in found.keys() & options(compare).keys():
        assert found[option].type.name == options(compare)[option].type.name, option


def test_the_settings_of_studies_are_told_as_those_of_experiments():
    found = {option.name: option for option in options_of(Settings)}
    assert found.keys() & MEANINGS.keys() >= {"model", "data", "examples", "degree", "device"}
    for name in found.keys() & MEANINGS.keys():
        assert found[name].help.startswith(MEANINGS[name])


def test_an_experiment_prints_its_report_as_json_or_only_its_place(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(
        writer, "draw_experiment", lambda *_: {}
    )  # figures take most of a tiny run's time
    line = ["compare", *tiny_runs.arguments(tmp_path / "out", steps=0)]
    assert run_command(main, [*line, "--json"]) == 0
    said = capfd.readouterr()
    assert json.loads(said.out) == tiny_runs.report(tmp_path / "out")
    assert "writing the report" in said.err
    assert run_command(main, [*line, "--resume", "--quiet"]) == 0
    assert capfd.readouterr() == (f"{tmp_path / 'out' / 'report.html'}\n", "")


def test_a_study_prints_its_verdicts_as_json_or_only_its_place(tmp_path, capfd):
    out = ["--out", str(tmp_path / "a")]
    assert run_study(made(passed=False), [*out, "--json", "--quiet"]) == 1
    said = capfd.readouterr()
    assert json.loads(said.out) == json.loads((tmp_path / "a" / "verdict.json").read_text())
    assert said.err == "check failed: it holds: by hand\n"
    assert run_study(made(passed=False), [*out, "--resume", "--quiet"]) == 1
    assert capfd.readouterr().out == f"{tmp_path / 'a'}\n"


def test_the_claims_come_as_json_or_as_their_place(tmp_path, capfd):
    assert run_study(made(), ["--out", str(tmp_path / "small"), "--quiet"]) == 0
    capfd.readouterr()
    assert run_command(claims, ["--results", str(tmp_path), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found == json.loads((tmp_path / "claims.json").read_text())
    assert found[0]["id"] == "T1"
    assert run_command(claims, ["--results", str(tmp_path), "--quiet"]) == 0
    assert capfd.readouterr().out == f"{tmp_path / 'claims.md'}\n"
