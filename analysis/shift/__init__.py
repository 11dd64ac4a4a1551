"""Domain shift: K_P against K_F, their kernel regressions and the trained models elsewhere (O3)."""

from analysis.shift.measurements import Settings
from analysis.shift.study import STUDY

__all__ = ["STUDY", "Settings"]
