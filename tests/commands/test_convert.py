import json

import pytest

from ntk_propulsion.commands.command_line import run_command
from ntk_propulsion.commands.convert import convert
from ntk_propulsion.conversion import FORMS
from tests.conversion.models import adapter_of, assert_same, build, load, logits, save_base, tune


@pytest.fixture
def made(tmp_path):
    """A base, an adapter of it as the command takes them, and the logits of the tuned model."""
    tuned = tune(save_base(tmp_path / "base", "deberta"), positions=("query", "mlp"))
    adapter = adapter_of(tuned, tmp_path / "a.safetensors")
    return [str(adapter), "--base", str(tmp_path / "base")], logits(tuned)


def run(source, to, out, *more):
    return run_command(convert, [*source, "--to", to, "--out", str(out), *map(str, more)])


def test_a_chain_of_commands_ends_with_the_model_it_began_with(made, tmp_path, capfd):
    source, expected = made
    base = source[1:]
    assert run(source, "in-model", tmp_path / "in") == 0
    assert run([str(tmp_path / "in")], "wrapped", tmp_path / "w") == 0
    assert run([str(tmp_path / "w"), *base], "adapter", tmp_path / "b", "--degree", 3) == 0
    assert run([str(tmp_path / "b"), *base], "merged", tmp_path / "m") == 0
    assert_same(logits(load(build("deberta"), tmp_path / "m")), expected, 1e-5)
    said = capfd.readouterr()
    assert said.err == ""
    assert said.out.startswith("a Propulsion adapter of this package: 6 scaled layers, degree 3\n")
    assert str(tmp_path / "m") in said.out
    assert "note: this dialect does not record the degree" in said.out


def test_bad_input_is_one_line_on_stderr_and_status_2(made, tmp_path, capfd):
    source, _ = made
    for arguments, said in (
        ((source, "peft", tmp_path / "o"), "unknown form 'peft'"),
        ((source, "merged", tmp_path / "o", "--degree", 2), "--degree 2"),
        (([str(tmp_path / "none")], "merged", tmp_path / "o"), "no checkpoint at"),
        ((source, "merged", tmp_path / "o", "--degree", "x"), "--degree"),
    ):
        assert run(*arguments) == 2
        lines = capfd.readouterr().err
        assert lines.count("\n") == 1
        assert lines.startswith("error: ")
        assert said in lines
    assert not (tmp_path / "o").exists()


def test_json_is_the_only_thing_on_stdout_and_quiet_says_where_the_result_is(made, tmp_path, capfd):
    source, _ = made
    assert run(source, "merged", tmp_path / "m", "--json") == 0
    said = capfd.readouterr()
    found = json.loads(said.out)
    assert said.err == ""
    assert set(found) == {"form", "source", "layers", "degree", "notes", "out"}
    assert found["form"] == "merged"
    assert found["layers"] == 6
    assert found["out"] == str(tmp_path / "m")
    assert run(source, "merged", tmp_path / "n", "--quiet") == 0
    assert capfd.readouterr() == (f"{tmp_path / 'n'}\n", "")


def test_the_help_names_every_form(capfd):
    assert run_command(convert, ["--help"]) == 0
    words = capfd.readouterr().out
    assert all(form in words for form in FORMS)
