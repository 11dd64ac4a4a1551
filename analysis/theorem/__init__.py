"""Theorem 1 on real tasks: K_P against K_F and its controls, the cost of each step (T1, T5)."""

from analysis.theorem.study import STUDY, Settings

__all__ = ["STUDY", "Settings"]
