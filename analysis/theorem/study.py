"""The study: its question and its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from analysis.fixtures.grid import QUICK
from analysis.framework.study import Study
from analysis.framework.tables import Row
from analysis.theorem import figures as theorem_figures
from analysis.theorem.measurements import Settings, measure
from analysis.theorem.verdicts import check, judge


def draw(rows: Sequence[Row], settings: Settings) -> Mapping[str, Figure]:
    """Draw distances by tuning, the error budget, and the paper's heat maps."""
    return theorem_figures.draw(rows, settings.task_names, settings)


STUDY = Study(
    name="theorem",
    question="Does Propulsion's kernel approximate full fine-tuning's, as Theorem 1 says?",
    settings=Settings,
    quick=QUICK
    | {"seeds": 1, "tasks": ("rotten-tomatoes",), "subsets": 2, "draws": 4, "max_length": 32},
    measure=measure,
    judge=judge,
    draw=draw,
    check=check,
)
