"""What an audit depends on: refused where it makes no sense, explained, named."""

import subprocess
import sys
from dataclasses import fields

import pytest

from ntk_propulsion.auditing import AuditSettings
from ntk_propulsion.errors import InputError
from ntk_propulsion.runs.options import meaning_of


@pytest.mark.parametrize(
    ("tuned", "names"),
    [
        (("runs/a.safetensors",), ["a.safetensors"]),
        (("x/a", "y/a"), ["x/a", "y/a"]),
        (("x/a", "y/b"), ["a", "b"]),
        (("x/a/", "z/y/a"), ["x/a", "y/a"]),
        (("a", "a"), ["a (1)", "a (2)"]),
        (("/",), ["/"]),
    ],
)
def test_names_are_distinct_and_as_short_as_that_allows(tuned, names):
    assert AuditSettings("base", tuned).names == names


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tuned": ()}, "nothing to audit"),
        ({"degree": 0}, "degree"),
        ({"examples": 1}, "--examples 1"),
        ({"outputs": "loss of all"}, "unknown output"),
        ({"dtype": "half"}, "unknown dtype"),
        ({"seed": -1}, "seed -1"),
        ({"memory": "much"}, "memory"),
    ],
)
def test_values_that_make_no_sense_are_refused(changes, said):
    with pytest.raises(InputError, match=said):
        AuditSettings(**{"base": "b", "tuned": ("c",)} | changes).check()


def test_the_defaults_make_sense():
    AuditSettings("b", ("c",)).check()


def test_every_setting_says_what_it_is_for():
    assert all(meaning_of(field) for field in fields(AuditSettings))


def test_settings_and_gates_are_shown_without_torch():
    code = (
        "import sys\n"
        "from ntk_propulsion.auditing import AuditSettings\n"
        "import ntk_propulsion.auditing.gates\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
