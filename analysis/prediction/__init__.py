"""Does the kernel at theta_0 predict a training that was really done? Claims P1 and P2."""

from analysis.prediction.study import STUDY, Settings

__all__ = ["STUDY", "Settings"]
