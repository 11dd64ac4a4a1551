"""The study: its question and its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from analysis.framework.study import Study
from analysis.framework.tables import Row
from analysis.speed import figure as speed_figure
from analysis.speed.measurements import LINEAR, Settings, measure
from analysis.speed.verdicts import OCTAVES, about, check, judge


def draw_figure(rows: Sequence[Row], settings: Settings) -> Mapping[str, Figure]:
    """Draw predicted against measured steps, losses and spectra."""
    methods, cap = settings.methods, settings.steps
    return {"figure": speed_figure.draw(rows, methods, cap, OCTAVES, about(settings))}


STUDY = Study(
    name="speed",
    question="Does the kernel's spectrum tell how many steps a training takes?",
    settings=Settings,
    quick={
        "examples": 8,
        "seeds": 2,
        "steps": 10,
        "max_length": 16,
        "probe_examples": 60,
        "methods": ("full", "propulsion", "lora", LINEAR),
    },
    measure=measure,
    judge=judge,
    draw=draw_figure,
    check=check,
)
