"""Does the kernel's spectrum tell how many steps a training takes? Claim E2b."""

from analysis.speed.measurements import Settings
from analysis.speed.study import STUDY

__all__ = ["STUDY", "Settings"]
