"""The study: its question and its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from analysis.framework.rulebook import RESOLVED
from analysis.framework.study import Study
from analysis.framework.tables import Row
from analysis.shift import figure as shift_figure
from analysis.shift.measurements import Settings, measure
from analysis.shift.verdicts import about, check, judge


def draw_figure(rows: Sequence[Row], settings: Settings) -> Mapping[str, Figure]:
    """Draw accuracies, excess drops and distances by target."""
    return {"figure": shift_figure.draw(rows, settings.control, RESOLVED, about(rows, settings))}


STUDY = Study(
    name="shift",
    question="Does K_P stay as close to K_F on other domains than it is tuned on?",
    settings=Settings,
    quick={
        "examples": 6,
        "steps": 2,
        "batch_size": 4,
        "probe_examples": 60,
        "train_examples": 16,
        "test_examples": 12,
        "max_length": 24,
    },
    measure=measure,
    judge=judge,
    draw=draw_figure,
    check=check,
)
