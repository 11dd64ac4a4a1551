"""Does K_P approach K_F, up to a scale, as a random network gets wider? Claim W1."""

from analysis.width.measurements import Settings
from analysis.width.study import STUDY

__all__ = ["STUDY", "Settings"]
