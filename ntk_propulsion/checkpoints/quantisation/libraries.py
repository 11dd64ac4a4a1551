"""The libraries that dequantise: imported when a file needs one, quietly, and named if missing."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

from packaging.version import Version

from ntk_propulsion.checkpoints.quantisation.scheme import refusal

LEAST = {"bitsandbytes": "0.50", "compressed-tensors": "0.18", "gguf": "0.10"}
"""The oldest versions that pass the tests: older ones give other numbers, or none on a CPU."""


def library(path: Path, package: str, scheme: str) -> ModuleType:
    """Import the library that opens a scheme.

    Args:
        path: Of the checkpoint, for the error.
        package: The package's name, e.g. ``"compressed-tensors"``.
        scheme: The scheme in words.

    Raises:
        InputError: The library is not installed, is too old, or cannot be imported.
    """
    least = LEAST.get(package, "0")
    advice = f"pip install '{package}>={least}'" if package in LEAST else f"pip install {package}"
    try:
        with _alone():
            module = import_module(package.replace("-", "_"))
    except Exception as error:  # a library that is broken raises what it likes
        missing = isinstance(error, ModuleNotFoundError)
        why = "which is not installed" if missing else "which cannot be imported"
        raise refusal(
            path,
            f"is quantised ({scheme}), which {package} opens, {why}",
            advice,
        ) from None
    if _is_older(package, least):
        raise refusal(
            path,
            f"is quantised ({scheme}), which {with_version(package)} is too old to open",
            advice,
        )
    return module


def _is_older(package: str, least: str) -> bool:
    try:
        return Version(version(package)) < Version(least)
    except PackageNotFoundError:  # imported from a folder, as in development: no version to ask
        return False


def with_version(package: str) -> str:
    """Return a package's name with its version."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package


@contextmanager
def _alone() -> Iterator[None]:
    """Keep an import from fetching anything: bitsandbytes asks `kernels` for a file of the hub."""
    there = "kernels" in sys.modules
    if not there:
        sys.modules["kernels"] = None  # type: ignore[assignment]  # Python's own mark: no import
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)
        if not there:
            del sys.modules["kernels"]
