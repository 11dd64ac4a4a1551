"""Does the kernel at theta_0 predict a training that was really done? Claims P1 and P2."""

from analysis.prediction.measurements import Settings
from analysis.prediction.study import STUDY

__all__ = ["STUDY", "Settings"]
