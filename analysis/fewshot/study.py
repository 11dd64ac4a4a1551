"""The study: its question and its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from analysis.fewshot import figure as fewshot_figure
from analysis.fewshot.measurements import Settings, measure
from analysis.fewshot.verdicts import about, check, judge
from analysis.framework.rulebook import RESOLVED
from analysis.framework.study import Study
from analysis.framework.tables import Row


def draw_figures(rows: Sequence[Row], settings: Settings) -> Mapping[str, Figure]:
    """Draw kernel behaviour, and the table of accuracies."""
    told = about(rows, settings)
    return {
        "figure": fewshot_figure.behaviour(rows, told),
        "accuracies": fewshot_figure.accuracies(rows, RESOLVED, told),
    }


STUDY = Study(
    name="fewshot",
    question="Does few-shot fine-tuning show kernel behaviour, and does the kernel solve reach it?",
    settings=Settings,
    quick={
        "examples": 2,
        "seeds": 2,
        "shots": (4,),
        "full_seeds": 1,
        "steps": 2,
        "batch_size": 4,
        "probe_examples": 40,
        "test_examples": 16,
        "solve_examples": 8,
        "max_length": 16,
    },
    measure=measure,
    judge=judge,
    draw=draw_figures,
    check=check,
)
