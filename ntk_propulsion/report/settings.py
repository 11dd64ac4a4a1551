"""The page's section on what a run was asked for and where it was computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ntk_propulsion.report.downloads import columns_of
from ntk_propulsion.report.sheets import Sheet, sheet, words_column
from ntk_propulsion.runs.environment import Environment
from ntk_propulsion.runs.records import Dataclass


@dataclass(frozen=True)
class _Setting:
    """One of them, as a table has it."""

    name: str
    value: str | None


def settings_sheets(config: Dataclass, environment: Environment) -> list[Sheet]:
    """Return a run's settings and its environment, a table each.

    Args:
        config: The settings, of any command.
        environment: Versions, machine, time and memory.
    """
    return [_sheet("config", config), _sheet("environment", environment)]


def _sheet(name: str, facts: Dataclass) -> Sheet:
    columns = [words_column("name"), words_column("value")]
    rows = [_Setting(key, written(key, value)) for key, value in columns_of(facts).items()]
    return sheet(name, name, columns, rows)


def written(key: str, value: Any) -> str | None:
    """Write a setting or a fact of the environment for people; None stays None."""
    if value is None:
        return None
    if key.endswith("_bytes"):
        return f"{value / 2**30:.2f} GiB"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {number}" for name, number in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)
