"""The package's files: rooms and nothing loose, none too long, each with its test."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ntk_propulsion"
SHIMS = {"__main__.py", "audit.py", "compare.py", "convert.py"}
LONGEST = 400
TOO_LONG: dict[str, int] = {}
"""Files that may be longer, with their lines: none may grow."""
WITHOUT_TEST = {
    "runs/progress.py": "does nothing: what overrides it has tests",
    "checkpoints/tensor_file.py": "a protocol and its one default: what keeps it has tests",
}
"""Modules with behaviour and no test file of their name: why."""


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def behaves(path: Path) -> bool:
    """Tell whether a module has a function or a method; those of data alone have none."""
    return any(isinstance(node, ast.FunctionDef) for node in ast.walk(ast.parse(path.read_text())))


def place_of_test(path: Path) -> Path:
    own = path.relative_to(PACKAGE)
    return ROOT / "tests" / own.parent / f"test_{own.stem.lstrip('_')}.py"


def test_nothing_is_loose_at_the_top_of_the_package() -> None:
    loose = {path.name for path in PACKAGE.iterdir() if path.suffix == ".py"}
    assert loose == {*SHIMS, "errors.py", "__init__.py"}
    for shim in SHIMS:
        assert not behaves(PACKAGE / shim)


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_a_module_with_behaviour_has_its_test(path: Path) -> None:
    name = name_of(path)
    needs = behaves(path) and name not in WITHOUT_TEST
    assert place_of_test(path).is_file() or not needs, f"no {place_of_test(path).relative_to(ROOT)}"


def test_what_is_excused_is_there_and_has_behaviour() -> None:
    assert all(behaves(PACKAGE / name) for name in WITHOUT_TEST)


def test_what_is_excused_has_no_test_of_its_name() -> None:
    assert not [name for name in WITHOUT_TEST if place_of_test(PACKAGE / name).exists()]


@pytest.mark.parametrize(
    "folder", ["ntk_propulsion", "analysis", "benchmarks", "docs/hooks"], ids=str
)
def test_no_file_is_too_long(folder: str) -> None:
    lines = {
        path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines())
        for path in (ROOT / folder).rglob("*.py")
    }
    too_long = {name: n for name, n in lines.items() if n > TOO_LONG.get(name, LONGEST)}
    assert not too_long


def test_what_may_be_longer_is() -> None:
    for name in TOO_LONG:
        assert len((ROOT / name).read_text().splitlines()) > LONGEST
