"""The study: its question and its parts."""

from __future__ import annotations

from analysis.framework.study import Study
from analysis.width.figure import draw
from analysis.width.measurements import Settings, measure
from analysis.width.verdicts import check, judge

STUDY = Study(
    name="width",
    question="Does K_P approach K_F, up to a scale, as a random network gets wider?",
    settings=Settings,
    quick={"examples": 8, "seeds": 3, "mlp_widths": (32, 64, 128), "bert_widths": (16, 32)},
    measure=measure,
    judge=judge,
    draw=draw,
    check=check,
)
