"""Theorem 1 on real tasks: K_P against K_F beside its controls, step by step (T1, T5)."""

from analysis.theorem.measurements import Settings
from analysis.theorem.study import STUDY

__all__ = ["STUDY", "Settings"]
