"""A layer before and after an update."""

import numpy as np
import torch
from hypothesis import strategies as st

from ntk_propulsion.theory.changes import LayerWeights

sizes = st.tuples(st.integers(1, 7), st.integers(1, 7))


def double(array):
    return torch.tensor(np.ascontiguousarray(array), dtype=torch.float64)


def layers(seed, size=(5, 4), bias=True, step=0.3):
    """A layer before and after a random update."""
    rng = np.random.default_rng(seed)
    W0, b0 = rng.normal(size=size), rng.normal(size=size[0])
    W1, b1 = W0 + step * rng.normal(size=size), b0 + step * rng.normal(size=size[0])
    if not bias:
        return LayerWeights(double(W0)), LayerWeights(double(W1))
    return LayerWeights(double(W0), double(b0)), LayerWeights(double(W1), double(b1))


def arrays(layer):
    """The neurons (w_j, b_j) of a linear layer with a bias, (d_out, d_in + 1)."""
    return torch.column_stack([layer.weight, layer.bias]).numpy()
