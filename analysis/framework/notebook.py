"""Studies in notebooks: done small or in full, or shown as they are kept; tables and figures.

A notebook calls a study by name and shows what came of it::

    outcome = notebook.study("theorem", full=FULL, model=MODEL, data=GLUE)  # computes
    outcome.figures  # shows them all
    notebook.kept("theorem")  # the results kept in analysis/results, without computing
"""

from __future__ import annotations

# ruff: noqa: E402
import hashlib
import json
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

warnings.filterwarnings("ignore", message="IProgress not found")  # libraries' bars are off anyway

from analysis.framework.catalogue import study as study_named
from analysis.framework.claims import RESULTS
from analysis.framework.options import Settings
from analysis.framework.study import FINAL, Study, described, execute, failed
from analysis.framework.tables import Row, load_rows, table_of
from ntk_propulsion.figures import style
from ntk_propulsion.runs.folder import OtherConditions
from ntk_propulsion.runs.progress import Progress

RUNS = Path(__file__).parents[2] / "runs" / "notebooks"
KEPT = "kept full result"
pd.set_option("display.max_colwidth", None)  # verdicts are sentences


class Figures(dict[str, Figure]):
    """Figures by name that a notebook shows one below the other, whatever its backend."""

    def _ipython_display_(self) -> None:
        for figure in self.values():
            show(figure)


def show(*figures: Figure) -> None:
    """Show figures in a notebook as PNG, with their titles for whoever cannot see them."""
    from IPython.display import Image, display

    for figure in figures:
        title = " ".join(figure.get_suptitle().split())
        display(Image(style.render(figure), alt=title or "figure without a title"))


@dataclass(frozen=True)
class Outcome:
    """What came of a study.

    Attributes:
        study: The study.
        folder: Where its results lie.
        label: What kind of results they are, in words.
        report: What verdict.json holds; empty where nothing is there yet.
    """

    study: Study[Any]
    folder: Path
    label: str
    report: Mapping[str, Any]

    @property
    def settings(self) -> Settings:
        """The settings that the results were made with."""
        return self.study.settings_of(self.report.get("settings", {}))

    @property
    def verdicts(self) -> pd.DataFrame:
        """The verdicts, as a table."""
        columns = ["verdict", "statement", "measured", "about"]
        return pd.DataFrame(self.report.get("verdicts", ()), columns=["id", *columns]).set_index(
            "id"
        )

    @cached_property
    def rows(self) -> list[Row]:
        """The measurements; arrays (for heat maps) have rows of their own."""
        return load_rows(self.folder) if self.report else []

    @property
    def table(self) -> pd.DataFrame:
        """The measurements, as a table."""
        return table_of(self.rows)

    @cached_property
    def figures(self) -> Figures:
        """The figures, drawn from the measurements."""
        return Figures(self.study.draw(self.rows, self.settings) if self.report else {})

    def _repr_html_(self) -> str:
        title = f"<b>{escape(self.study.name)}</b>, {self.label}: {escape(self.study.question)}"
        if not self.report:
            command = f"python -m analysis.{self.study.name}"
            return f"<p>{title}<br>Nothing is kept yet: <code>{command}</code> computes it.</p>"
        wrong = "".join(
            f"<p><b>Check failed: {escape(check['name'])}: {escape(check['measured'])}</b></p>"
            for check in failed(self.report)
        )
        how = f"<code>{escape(self.report['command'])}</code>"
        if checks := len(self.report["checks"]):
            how += f"; {checks - len(failed(self.report))} of {checks} exact checks passed"
        return f"<p>{title}<br>{how}</p>{wrong}{self.verdicts.to_html()}"


def study(
    name: str,
    *,
    full: bool = False,
    model: str | None = None,
    data: str | None = None,
    **quick: Any,
) -> Outcome:
    """Do a study, or take up what is there of it with the same settings in runs/notebooks.

    Args:
        name: Of the study.
        full: Take its full settings, those of the kept results.
        model: Instead of MiniLM; a study of random networks has its own and leaves this out.
        data: The GLUE folder; None for packaged data.
        **quick: Settings that are yet smaller than those of ``--quick``, or else than they are;
            without effect under `full`.

    Raises:
        InputError: There is no such study, or it cannot be done so.
    """
    one = study_named(name)
    pretrained = one.settings().model == Settings().model
    given = {"data": data, "model": model if pretrained else None}
    settings = one.choose(not full, **({} if full else quick), **given)
    folder = RUNS / f"{name}-{_digest(settings)}"
    with _Line() as line:
        try:
            execute(one, settings, folder, resume=True, progress=line)
        except OtherConditions:  # what is there could only be mixed with what comes
            execute(one, settings, folder, overwrite=True, progress=line)
    return _opened(one, folder, "full run" if full else "quick run, too small to judge by")


def kept(name: str) -> Outcome:
    """Return the results of a study as they are kept in analysis/results; nothing is computed.

    Raises:
        InputError: There is no such study.
    """
    return _opened(study_named(name), RESULTS / name, KEPT)


def _opened(one: Study[Any], folder: Path, label: str) -> Outcome:
    there = (folder / FINAL).is_file()
    return Outcome(one, folder, label, json.loads((folder / FINAL).read_text()) if there else {})


def _digest(settings: Settings) -> str:
    text = json.dumps(described(settings), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


class _Line(Progress):
    """One line of a notebook's output, told anew at each step; silent outside of notebooks."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._what = ""
        self._display: Any = None

    def __enter__(self) -> _Line:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self._what and kind is None:
            self._tell(f"done in {time.perf_counter() - self._start:.0f} s")

    def begin(self, what: str, total: int | None = None) -> None:
        """Tell what begins."""
        self._what = what
        self._tell("begins")

    def advance(self, done: int, total: int | None = None) -> None:
        """Tell which part is being done."""
        self._tell(f"part {done + 1}, after {time.perf_counter() - self._start:.0f} s")

    def _tell(self, state: str) -> None:
        try:
            from IPython import display, get_ipython
        except ImportError:
            return
        if get_ipython() is None:
            return
        text = {"text/plain": f"{self._what}: {state}"}
        if self._display is None:
            self._display = display.display(text, raw=True, display_id=True)
        else:
            self._display.update(text, raw=True)
