"""The study: its question and its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from analysis.bounds import figure as bounds_figure
from analysis.bounds.figure import GAUSSIAN
from analysis.bounds.measurements import Settings, measure
from analysis.bounds.verdicts import about, check, judge
from analysis.framework.study import Study
from analysis.framework.tables import Row


def draw(rows: Sequence[Row], settings: Settings) -> Mapping[str, Figure]:
    """Draw failures by width, Gamma2 by layer, and failures by layer."""
    captions = about(settings, GAUSSIAN), about(settings)
    return {"figure": bounds_figure.figure(rows, *captions)}


STUDY = Study(
    name="bounds",
    question="Do the concentration bounds hold, printed and with Gamma2, by width and by layer?",
    settings=Settings,
    quick={"examples": 12, "probe_examples": 60, "draws": 20_000, "redraws": 400},
    measure=measure,
    judge=judge,
    draw=draw,
    check=check,
)
