"""How numbers spread: which stand apart, over how many a deviation is spread, how unequal."""

from __future__ import annotations

import torch
from torch import Tensor

MAD_TO_STD = 1.4826
"""Standard deviation over median absolute deviation, for Gaussian values."""
MEAN_TO_STD = 1.2533
"""Standard deviation over mean absolute deviation, for Gaussian values: sqrt(pi / 2)."""


def robust_scores(z: Tensor) -> tuple[Tensor, float, float]:
    """Return the modified z-scores of Iglewicz and Hoaglin, with their median and spread.

    (z - median) / (1.4826 MAD), MAD the median absolute deviation from the median. Where more than
    half of the entries are equal, MAD is 0 and 1.2533 times the mean absolute deviation takes its
    place; where all are, every score is 0.

    Args:
        z: (n,).
    """
    centre = z.quantile(0.5)
    deviation = (z - centre).abs()
    spread = MAD_TO_STD * float(deviation.quantile(0.5)) or MEAN_TO_STD * float(deviation.mean())
    scores = (z - centre) / spread if spread else torch.zeros_like(z)
    return scores, float(centre), spread


def effective_number(deviation: Tensor) -> float:
    """Return over how many entries a deviation (n,) spreads: (sum d**2)**2 / sum d**4.

    The participation ratio of its squares, from 1 (a single entry) to n (all alike), 0 for no
    deviation.
    """
    largest = deviation.abs().max()
    if largest == 0:
        return 0.0
    squares = (deviation / largest) ** 2
    return float(squares.sum() ** 2 / (squares**2).sum())


def gini(sizes: Tensor) -> float:
    """Return the Gini coefficient of sizes (n,) >= 0: 0 for all equal, 1 - 1/n for a single one."""
    total = sizes.sum()
    if total == 0:
        return 0.0
    n = len(sizes)
    ranks = torch.arange(1, n + 1, dtype=sizes.dtype)
    return max(0.0, float(((2 * ranks - n - 1) * sizes.sort().values).sum() / (n * total)))
