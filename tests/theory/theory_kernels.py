"""Kernels for the tests of the theory: seeded, by kind."""

import numpy as np
from hypothesis import strategies as st

seeds = st.integers(0, 2**32 - 1)
kinds = st.sampled_from(["psd", "asymmetric", "cross"])


def kernel_pair(seed, kind, examples=7, outputs=2, features=9):
    """Two related kernels (N*O, M*O), psd, square but asymmetric, or cross with M = N - 2."""
    rng = np.random.default_rng(seed)
    columns = examples - 2 if kind == "cross" else examples

    def features_of(count):
        left = rng.normal(size=(count * outputs, features)) + rng.normal(size=features)
        return left, left @ rng.normal(size=(features, features)) * 0.3 + left

    F, G = features_of(examples)
    F2, G2 = (F, G) if kind == "psd" else features_of(columns)
    return F @ F2.T, G @ G2.T


def example_rows(order, outputs):
    """Rows of a kernel after its examples are put in this order."""
    return (np.asarray(order)[:, None] * outputs + np.arange(outputs)).ravel()
