"""How much nearer a kernel is than those of random subsets, with a paired interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.framework.rules import (
    Estimate,
)
from ntk_propulsion.theory.distances import unbiased_cka

RESAMPLES = 200  # of the paired bootstrap: each one recomputes every random subset's CKA


def nearer(K: np.ndarray, subsets: Sequence[np.ndarray], K0: np.ndarray, outputs: int) -> Estimate:
    """Return unbiased CKA of K with K0 minus the mean of the subsets', with a 95% interval.

    A bootstrap over examples without their copies: half of the examples are drawn, again and
    again, without replacement (no example then meets itself), and the spread is scaled from half
    the sample to the whole: (N/2 of N without replacement) has the variance of the whole sample's
    mean. Politis, Romano, Wolf, Subsampling (1999).
    """
    n = len(K) // outputs

    def gap(rows: np.ndarray) -> float:
        index = (rows[:, None] * outputs + np.arange(outputs)).ravel()
        pick = np.ix_(index, index)
        rest = np.mean([unbiased_cka(S[pick], K0[pick], outputs) for S in subsets])
        return unbiased_cka(K[pick], K0[pick], outputs) - float(rest)

    value = gap(np.arange(n))
    rng = np.random.default_rng(0)
    drawn = [gap(rng.permutation(n)[: n // 2]) for _ in range(RESAMPLES)]
    low, high = np.percentile(np.array(drawn) - np.mean(drawn), [2.5, 97.5])
    return Estimate(value, value + float(low), value + float(high))
