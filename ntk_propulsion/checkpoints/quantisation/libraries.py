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

from ntk_propulsion.checkpoints.quantisation.scheme import refusal


def library(path: Path, package: str, scheme: str) -> ModuleType:
    """Import the library that opens a scheme.

    Args:
        path: Of the checkpoint, for the error.
        package: The package's name, e.g. ``"compressed-tensors"``.
        scheme: The scheme in words.

    Raises:
        InputError: The library is not installed, or cannot be imported.
    """
    try:
        with _alone():
            return import_module(package.replace("-", "_"))
    except Exception as error:  # a library that is broken raises what it likes
        missing = isinstance(error, ModuleNotFoundError)
        why = "which is not installed" if missing else "which cannot be imported"
        raise refusal(
            path,
            f"is quantised ({scheme}), which {package} opens, {why}",
            f"pip install {package}",
        ) from None


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
