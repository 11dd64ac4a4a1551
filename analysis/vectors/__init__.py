"""What Propulsion learns: z and its gains z**k by depth, role and task, and how alike tasks are."""

from analysis.vectors.measurements import Settings
from analysis.vectors.study import STUDY

__all__ = ["STUDY", "Settings"]
