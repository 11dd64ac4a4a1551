"""What training costs by method: numbers trained, memory, time a step, time to a target, energy."""

from analysis.cost.settings import Settings
from analysis.cost.study import STUDY

__all__ = ["STUDY", "Settings"]
