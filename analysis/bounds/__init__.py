"""The concentration bounds under test: printed and with Gamma2, Gaussian and pretrained (T2)."""

from analysis.bounds.measurements import Settings
from analysis.bounds.study import STUDY

__all__ = ["STUDY", "Settings"]
