"""What the degree k of z**k does: to the kernel, to the path of a training, to accuracy (A1)."""

from analysis.degree.measurements import Settings
from analysis.degree.study import STUDY

__all__ = ["STUDY", "Settings"]
