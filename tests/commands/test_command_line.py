import errno

import click
import pytest
from safetensors import SafetensorError

from ntk_propulsion.commands.command_line import (
    Interrupted,
    Output,
    ProgressBar,
    run_command,
)
from ntk_propulsion.commands.options import command as command_of
from ntk_propulsion.errors import InputError


def command(error=None, value=None):
    @click.command()
    @click.option("--n", type=int)
    def act(n):
        if error is not None:
            raise error
        return value

    return act


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (InputError("no\n such  thing"), 2, "error: no such thing\n"),
        (Interrupted("go on so"), 130, "interrupted: go on so\n"),
        (click.UsageError("bad"), 2, "error: bad\n"),
    ],
)
def test_errors_for_people_are_one_line(capsys, error, status, said):
    assert run_command(command(error), []) == status
    assert capsys.readouterr().err == said


def test_an_interrupt_has_the_shells_status(capsys):
    assert run_command(command(KeyboardInterrupt()), []) == 130
    assert capsys.readouterr().err.strip() == "interrupted"


def test_wrong_options_are_one_line(capsys):
    assert run_command(command(), ["--n", "x"]) == 2
    err = capsys.readouterr().err
    assert "'x' is not a valid integer" in err
    assert err.count("\n") == 1


def test_a_bug_shows_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_command(command(ZeroDivisionError()), [])


def test_success_and_help_are_0(capsys):
    assert run_command(command(), []) == 0
    assert run_command(command(value="ignored"), []) == 0
    assert run_command(command(), ["--help"]) == 0
    assert "--n" in capsys.readouterr().out


def test_progress_without_a_terminal_is_one_line_a_step(capsys):
    with ProgressBar() as progress:
        progress.begin("[one]")
        progress.advance(1, 3)
        progress.begin("two", 5)
        progress.advance(5)
    assert capsys.readouterr().err == "[one]\ntwo\n"


def test_progress_on_a_terminal_counts(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    with ProgressBar() as progress:
        progress.begin("[one]")
        progress.advance(1, 3)
        progress.begin("two", 5)
        progress.advance(5)
    shown = capsys.readouterr().err
    assert "[one]" in shown
    assert "5/5" in shown


def test_a_quiet_bar_says_nothing_on_a_terminal_or_in_a_log(capsys, monkeypatch):
    for force in ("", "1"):
        monkeypatch.setenv("FORCE_COLOR", force)
        monkeypatch.setenv("TTY_COMPATIBLE", force)
        with ProgressBar(quiet=True) as progress:
            progress.begin("one", 2)
            progress.advance(1)
    assert capsys.readouterr() == ("", "")


@command_of(output=Output)
@click.option("--n", default=1)
def speak(n, output):
    with output.progress() as progress:
        progress.begin("working")
    output.console().print("a table")
    output.end("runs/[red]x", '{\n "n": 1\n}\n')


@pytest.mark.parametrize(
    ("arguments", "out", "err"),
    [
        ([], "a table\nruns/[red]x\n", "working\n"),
        (["--quiet"], "runs/[red]x\n", ""),
        (["--json"], '{\n "n": 1\n}\n', "working\n"),
        (["--json", "--quiet", "--n", "2"], '{\n "n": 1\n}\n', ""),
    ],
)
def test_output_is_tables_or_json_or_the_place_and_never_coloured_in_a_pipe(
    capfd, arguments, out, err
):
    assert run_command(speak, arguments) == 0
    assert capfd.readouterr() == (out, err)


def test_no_color_is_honoured_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    red = "\x1b[31m"
    Output().console().print("[red]x")
    assert red in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    Output().console().print("[red]x")
    assert red not in capsys.readouterr().out


def test_nothing_that_is_shown_steers_the_terminal(capsys, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")
    Output().console().print("[red]x[/red] \x1b]0;title\x07 \x9b31m \u202eright \u200b\ud800")
    Output().end("runs/\x1b[31m", "")
    said = capsys.readouterr().out
    for colour in ("\x1b[31mx", "\x1b[0m", "\x1b[1m"):
        said = said.replace(colour, "")
    assert all(character.isprintable() or character == "\n" for character in said)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "/a/report.html"),
        OSError(errno.ENAMETOOLONG, "File name too long", "x" * 5000),
        OSError("a library's own words"),
        MemoryError(),
        SafetensorError("I/O error: No space left on device (os error 28)"),
        click.UsageError("\x1b[31m" * 100),
        InputError("\u202e" * 400),
    ],
)
def test_what_the_system_refuses_is_one_short_line(capsys, error):
    assert run_command(command(error), []) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("error: ")
    assert len(said) <= 300
    assert said.strip().isprintable()
