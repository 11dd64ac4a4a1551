"""The study: its question and its parts."""

from __future__ import annotations

from analysis.degree.figure import draw
from analysis.degree.measurements import Settings, measure
from analysis.degree.verdicts import check, judge
from analysis.fixtures import grid
from analysis.framework.study import Study

STUDY = Study(
    name="degree",
    question="Does the degree do more than set a step size?",
    settings=Settings,
    quick=grid.QUICK
    | {
        "examples": 4,
        "degrees": (1, 15, 55),
        "path_degrees": (55,),
        "path_steps": 4,
        "sgd_shares": (0.5,),
        "adam_rates": (1e-3,),
    },
    measure=measure,
    judge=judge,
    draw=draw,
    check=check,
)
