"""Few-shot fine-tuning: kernel behaviour, and does the kernel solve reach it? (K1, K2)."""

from analysis.fewshot.study import STUDY, Settings

__all__ = ["STUDY", "Settings"]
