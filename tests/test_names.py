"""The package's public names: each is there, explained, and imported when it is asked for."""

import subprocess
import sys

import pytest

import ntk_propulsion
from ntk_propulsion import kernels
from ntk_propulsion.kernels import tunings


@pytest.mark.parametrize("name", ntk_propulsion.__all__)
def test_every_public_name_is_there_and_explained(name: str) -> None:
    assert getattr(ntk_propulsion, name).__doc__
    assert name in dir(ntk_propulsion)


def test_a_name_is_that_of_its_room() -> None:
    assert ntk_propulsion.Kernel is kernels.Kernel
    assert ntk_propulsion.Propulsion is tunings.Propulsion


def test_every_tuning_with_a_name_stands_at_the_top() -> None:
    kinds = tunings.TUNINGS.values()
    classes = {kind.__name__ for kind in kinds if kind.__module__.startswith("ntk_propulsion.")}
    assert classes <= set(ntk_propulsion.__all__)


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'empirical_tnk'"):
        ntk_propulsion.empirical_tnk  # noqa: B018


def test_the_package_itself_imports_no_torch() -> None:
    code = "import sys, ntk_propulsion; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
