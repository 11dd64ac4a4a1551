import click
import pytest

from ntk_propulsion.command_line import Command, Interrupted, Names, ProgressBar, run_command
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


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ([], ("all",)),
        (["--names", "a,b"], ("a", "b")),
        (["--names", "a", "b", "--n", "3"], ("a", "b")),
        (["--n", "3", "--names", "a, b", "c"], ("a", "b", "c")),
        (["--names", ""], ()),
    ],
)
def test_names_are_separated_by_commas_or_spaces(arguments, names):
    seen = []

    @click.command(cls=Command)
    @click.option("--names", cls=Names, default="all")
    @click.option("--n", default=1)
    def command(names, n):
        seen.append(names)

    assert run_command(command, arguments) == 0
    assert seen == [names]
