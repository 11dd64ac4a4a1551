"""The concentration bounds under test: printed and with Gamma2, Gaussian and pretrained (T2)."""

from analysis.bounds.study import STUDY, Settings

__all__ = ["STUDY", "Settings"]
