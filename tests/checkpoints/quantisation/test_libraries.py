import sys
import tomllib
from pathlib import Path

import pytest

from ntk_propulsion.checkpoints.quantisation import libraries
from ntk_propulsion.checkpoints.quantisation.libraries import library, with_version
from ntk_propulsion.errors import InputError


def test_a_missing_library_is_named_with_how_to_get_it():
    with pytest.raises(InputError, match="which is not installed: pip install no-such-package"):
        library(Path("x"), "no-such-package", "a scheme")


def test_a_library_that_is_too_old_is_refused(monkeypatch):
    monkeypatch.setitem(libraries.LEAST, "torch", "99.0")
    with pytest.raises(InputError, match=r"torch 2.* is too old to open: pip install 'torch>="):
        library(Path("x"), "torch", "a scheme")


def test_the_extras_ask_for_what_is_tested():
    text = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    extras = tomllib.loads(text)["project"]["optional-dependencies"]
    for package, least in libraries.LEAST.items():
        assert f"{package}>={least}" in extras[package]


def test_a_broken_library_is_said_to_be(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("raise OSError('no libcuda')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="cannot be imported"):
        library(Path("x"), "broken-package", "a scheme")


def test_nothing_is_fetched_while_a_library_is_imported(tmp_path, monkeypatch):
    (tmp_path / "kernels.py").write_text("raise AssertionError")
    (tmp_path / "fetching.py").write_text(
        "try:\n    import kernels\nexcept ImportError:\n    kernels = None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "kernels", raising=False)
    assert library(Path("x"), "fetching", "a scheme").kernels is None
    assert "kernels" not in sys.modules


def test_versions_are_said():
    assert with_version("torch").startswith("torch 2")
    assert with_version("no-such-package") == "no-such-package"
