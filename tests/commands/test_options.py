import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click
import pytest

from ntk_propulsion.commands.command_line import run_command
from ntk_propulsion.commands.options import command, options_of
from ntk_propulsion.runs.options import MEANINGS, option
from ntk_propulsion.tasks import known_tasks

ROOT = Path(__file__).parents[2]
WITHOUT_TORCH = """
import sys
from ntk_propulsion.commands.main import main
from ntk_propulsion.commands.command_line import run_command
assert run_command(main, [sys.argv[1], "--help"]) == 0
print(sorted({"torch", "transformers", "matplotlib"} & sys.modules.keys()))
"""


@dataclass(frozen=True)
class Choice:
    start: str = option(meaning="Where it begins.")
    degree: int | None = option(None, more="If at all.")
    rate: float = option(0.5, "How fast.")
    names: tuple[str, ...] = option(("all",), "Which.")
    widths: tuple[int, ...] = option((), "How wide.", unset="as wide as it gets")
    kind: Literal["plain", "odd"] = option("plain", "What kind.")
    pictures: bool = option(True, "Draw.")
    dry_run: bool = option(False, "Do nothing.")


@dataclass(frozen=True)
class Files:
    file: tuple[str, ...] = option(meaning="One each time.", repeated=True)


def chosen(part, arguments):
    """Return the status of a command that takes this part, and what it was given."""
    seen = []

    @command(part=part)
    def act(part):
        seen.append(part)

    return run_command(act, arguments), *seen


def test_what_is_not_given_is_the_dataclass_s_own_default():
    assert chosen(Choice, ["--start", "a"]) == (0, Choice("a"))


def test_each_type_of_field_takes_its_values():
    line = "--start a --degree 2 --rate 1e-3 --kind odd --widths 8 16 --no-pictures --dry-run"
    expected = Choice("a", 2, 1e-3, widths=(8, 16), kind="odd", pictures=False, dry_run=True)
    assert chosen(Choice, line.split()) == (0, expected)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--names", "a,b"], ("a", "b")),
        (["--names", "a", "b", "--degree", "3"], ("a", "b")),
        (["--degree", "3", "--names", "a, b", "c"], ("a", "b", "c")),
        (["--names", ""], ()),
    ],
)
def test_several_values_are_separated_by_commas_or_spaces(arguments, names):
    assert chosen(Choice, ["--start", "a", *arguments])[1].names == names


def test_repeated_values_may_hold_spaces_and_commas():
    assert chosen(Files, ["--file", "a b", "--file", "c,d"]) == (0, Files(("a b", "c,d")))


@pytest.mark.parametrize(
    ("part", "arguments", "said"),
    [
        (Choice, [], "Missing option '--start'"),
        (Files, [], "Missing option '--file'"),
        (Choice, ["--start", "a", "--degree", "x"], "'x' is not a valid integer"),
        (Choice, ["--start", "a", "--widths", "8,x"], "'x' is not a valid integer"),
        (Choice, ["--start", "a", "--speed", "8"], "No such option"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(capsys, part, arguments, said):
    assert chosen(part, arguments) == (2,)
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_the_help_says_what_each_means_and_its_default():
    told = {each.name: each.help for each in options_of(Choice)}
    assert told == {
        "start": "Where it begins.",
        "degree": f"{MEANINGS['degree']} If at all.",
        "rate": "How fast.  [default: 0.5]",
        "names": "Which.  [default: all]",
        "widths": "How wide.  [default: as wide as it gets]",
        "kind": "What kind.  [default: plain]",
        "pictures": "Draw.  [default: pictures]",
        "dry_run": "Do nothing.",
    }


def test_a_command_may_say_a_default_that_only_it_knows():
    told = {each.name: each.help for each in options_of(Choice, {"rate": "by the moon"})}
    assert told["rate"] == "How fast.  [default: by the moon]"


def test_the_help_names_every_task():
    @dataclass(frozen=True)
    class OfTask:
        task: str = option("imdb")

    (told,) = options_of(OfTask)
    assert all(name in told.help for name in known_tasks())


def test_an_argument_of_its_own_stands_beside_the_options():
    seen = []

    @command(part=Choice)
    @click.argument("source")
    def act(source, part):
        seen.append((source, part.start))

    assert run_command(act, ["here", "--start", "a"]) == 0
    assert seen == [("here", "a")]


@pytest.mark.parametrize("name", ["compare", "audit"])
def test_the_help_of_a_command_needs_no_torch(name):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, name],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--degree" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
