"""How soon does each method reach a metric, by the number of training examples? Claim E2."""

from analysis.convergence.measurements import Settings
from analysis.convergence.study import STUDY

__all__ = ["STUDY", "Settings"]
