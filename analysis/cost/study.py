"""The study: its question and its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from analysis.cost import figure as cost_figure
from analysis.cost.measurements import measure
from analysis.cost.settings import Settings
from analysis.cost.verdicts import about, check, judge
from analysis.framework.study import Study
from analysis.framework.tables import Row


def draw(rows: Sequence[Row], settings: Settings) -> Mapping[str, Figure]:
    """Draw what each method costs."""
    return {"figure": cost_figure.draw(rows, settings.methods, about(rows, settings))}


QUICK: dict[str, Any] = {
    "batch_size": 4,
    "length": 16,
    "rounds": 1,
    "span": 0.1,
    "steps": 2,
    "every": 1,
    "probe_examples": 60,
    "test_examples": 24,
}
STUDY = Study(
    name="cost",
    question="What does training by each method cost in numbers, memory, time and energy?",
    settings=Settings,
    quick=QUICK,
    measure=measure,
    judge=judge,
    draw=draw,
    check=check,
)
