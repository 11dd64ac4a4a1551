"""The study: its question and its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from analysis.framework.study import Study
from analysis.framework.tables import Row
from analysis.prediction import figure as prediction_figure
from analysis.prediction.measurements import Settings, measure, slopes
from analysis.prediction.verdicts import about, about_networks, check, judge
from ntk_propulsion.measurements import regime


def draw(rows: Sequence[Row], settings: Settings) -> Mapping[str, Figure]:
    """Draw the transformer's outputs over steps, errors by width, and sign descent."""
    told = f"{about(settings)}; sign descent and Adam: {settings.sign_steps} steps on all texts"
    return {
        "figure": prediction_figure.transformer(rows, regime.HOLDS, about(settings)),
        "networks": prediction_figure.networks(rows, slopes(rows), about_networks(settings)),
        "signs": prediction_figure.signs(rows, told),
    }


STUDY = Study(
    name="prediction",
    question="Does the kernel at theta_0 predict a training that was really done?",
    settings=Settings,
    quick={
        "examples": 4,
        "test_examples": 10,
        "seeds": 2,
        "steps": 3,
        "max_length": 12,
        "probe_examples": 60,
        "methods": ("full", "propulsion"),
        "sign_steps": 2,
        "widths": (64, 128, 256),
        "network_seeds": 2,
        "network_steps": 20,
    },
    measure=measure,
    judge=judge,
    draw=draw,
    check=check,
)
