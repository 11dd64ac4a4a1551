"""What training costs by method: numbers trained, memory, time a step, time to a target, energy."""

from analysis.cost.study import STUDY, Settings

__all__ = ["STUDY", "Settings"]
