"""The study: its question and its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from analysis.framework.study import Study
from analysis.framework.tables import Row
from analysis.vectors import figure as vectors_figure
from analysis.vectors.measurements import Settings, measure
from analysis.vectors.verdicts import about, check, judge


def draw(rows: Sequence[Row], settings: Settings) -> Mapping[str, Figure]:
    """Draw distributions by depth, histograms, and likeness."""
    told = about(rows, settings)
    drawn = {
        "figure": vectors_figure.by_depth(rows, told),
        "histograms": vectors_figure.histograms(rows, settings.degree, told),
    }
    if any(row.get("kind") == "pair" for row in rows):
        drawn["likeness"] = vectors_figure.likeness(rows, told)
    return drawn


STUDY = Study(
    name="vectors",
    question="Where do the scaling vectors go, by depth, role and task, and how alike are tasks?",
    settings=Settings,
    quick={
        "seeds": 2,
        "steps": 2,
        "batch_size": 8,
        "probe_examples": 40,
        "test_examples": 24,
        "max_length": 24,
    },
    measure=measure,
    judge=judge,
    draw=draw,
    check=check,
)
