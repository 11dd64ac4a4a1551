"""Scaling vectors near one, drawn by a seed."""

import numpy as np
import torch
from hypothesis import strategies as st

SEEDS = st.integers(0, 2**32 - 1)


def near_one(seed, n=200, spread=0.01):
    return torch.tensor(1 + spread * np.random.default_rng(seed).normal(size=n))
