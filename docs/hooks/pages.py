"""How hooks put pages and files that they make into the site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]


def add_pages(files: Files, config: MkDocsConfig, pages: Mapping[str, str]) -> None:
    """Add pages: Markdown by where it seems to lie under docs/."""
    for place, text in pages.items():
        files.append(File.generated(config, place, content=text))


def add_copies(files: Files, config: MkDocsConfig, copies: Mapping[str, Path]) -> None:
    """Add files that lie elsewhere, by where they seem to lie under docs/."""
    for place, path in copies.items():
        files.append(File.generated(config, place, abs_src_path=str(path)))


def extend_nav(config: MkDocsConfig, section: str, entries: Sequence[Any]) -> None:
    """Add entries to a section of the navigation."""
    nav: list[Any] = config.nav or []
    next(item[section] for item in nav if section in item).extend(entries)
