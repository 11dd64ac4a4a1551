"""The study: its question and its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from analysis.convergence import figure as convergence_figure
from analysis.convergence.measurements import Settings, measure
from analysis.convergence.verdicts import about, check, judge
from analysis.framework.study import Study
from analysis.framework.tables import Row


def draw_figures(rows: Sequence[Row], settings: Settings) -> Mapping[str, Figure]:
    """Draw the metric over steps, and steps and metric by the number of training examples."""
    told = about(settings)
    return {
        "figure": convergence_figure.curves(rows, told),
        "sizes": convergence_figure.by_size(rows, settings.never, told),
    }


STUDY = Study(
    name="convergence",
    question="Does Propulsion reach a metric in fewer steps than LoRA and AdaLoRA?",
    settings=Settings,
    quick={
        "seeds": 2,
        "sizes": (8, 32),
        "steps": 3,
        "at": (1,),
        "batch_size": 4,
        "max_length": 16,
        "test_examples": 20,
        "sweep": 2,
        "sweep_steps": 1,
        "sweep_size": 8,
    },
    measure=measure,
    judge=judge,
    draw=draw_figures,
    check=check,
)
