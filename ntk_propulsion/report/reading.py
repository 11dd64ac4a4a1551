"""Reads a finished experiment back from its folder: report.json and the arrays beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ntk_propulsion.errors import InputError
from ntk_propulsion.experiment.arrays import load_arrays
from ntk_propulsion.experiment.results import SCHEMA, Arrays, Experiment
from ntk_propulsion.report.document import Report
from ntk_propulsion.runs.records import from_json

T = TypeVar("T")
FILE = "report.json"


@dataclass(frozen=True)
class Heading:
    """What tells the reports apart that a folder may hold.

    Attributes:
        schema: The version of its form.
        claims: There in the report of a comparison.
        verdicts: There in the report of an audit.
    """

    schema: int
    claims: list[Any] | None = None
    verdicts: list[Any] | None = None


def read_experiment(folder: Path) -> tuple[Experiment, Arrays]:
    """Read what an experiment left in its folder, to draw and write its report again.

    Raises:
        InputError: A file is missing or damaged, or of another version or command.
    """
    experiment = _read(folder, Experiment)
    return experiment, load_arrays(folder, experiment.results)


def read_report(folder: Path) -> Report:
    """Read the report.json of an experiment.

    Raises:
        InputError: It is missing or damaged, or of another version or command.
    """
    return _read(folder, Report)


def read_heading(folder: Path) -> Heading:
    """Read which report a folder holds.

    Raises:
        InputError: It holds none that is whole.
    """
    path = folder / FILE
    try:
        return from_json(Heading, path.read_bytes())
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}): name the folder of a finished run"
        ) from error
    except InputError as error:
        raise InputError(f"{path} is not a report: {error}") from error


def _read(folder: Path, form: type[T]) -> T:
    heading, path = read_heading(folder), folder / FILE
    if heading.claims is None:
        raise InputError(f"{path} is not the report of a comparison")
    if heading.schema != SCHEMA:
        raise InputError(
            f"{path} has schema {heading.schema}, this version reads {SCHEMA}: compare anew"
        )
    try:
        return from_json(form, path.read_bytes())
    except InputError as error:
        raise InputError(f"{path} is damaged: {error}") from error
