"""Few-shot fine-tuning: is it kernel behaviour, and does the kernel solve reach it? K1, K2."""

from analysis.fewshot.measurements import Settings
from analysis.fewshot.study import STUDY

__all__ = ["STUDY", "Settings"]
