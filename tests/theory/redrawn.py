"""Propulsion's kernels of one module under Gaussian redraws of its parameters."""

import numpy as np

from ntk_propulsion.theory.error_budget import propulsion_kernel


def redrawn_kernels(X, D, weight_variance, bias_variance=0.0, *, degree=1, draws=16, seed=0):
    """Kernels (draws, N*O, N*O) at fixed inputs X (N, T, d_in), cotangents D (N, O, T, d_out)."""
    rng = np.random.default_rng(seed)
    width = D.shape[3]
    kernels = []
    for _ in range(draws):
        W = np.sqrt(weight_variance) * rng.normal(size=(width, X.shape[2]))
        b = np.sqrt(bias_variance) * rng.normal(size=width)
        kernels.append(propulsion_kernel(X, D, W, b, degree=degree))
    return np.stack(kernels)
