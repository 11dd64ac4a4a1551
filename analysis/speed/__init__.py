"""Does the kernel's spectrum tell how many steps a training takes? Claim E2b."""

from analysis.speed.study import STUDY, Settings

__all__ = ["STUDY", "Settings"]
