"""Pooling several scaling vectors of one layer into one (the paper's multi-Propulsion)."""

from __future__ import annotations

import torch
from torch import Tensor

from ntk_propulsion.errors import InputError, unknown

POOLINGS = ("average", "max", "min", "l2")
TIES = ("first", "even")


def check_pooling(vectors: int, pooling: str, ties: str) -> None:
    """Check what several vectors are and how they are pooled.

    Raises:
        InputError: `vectors` is not a whole number of at least 1, or a name is unknown.
    """
    if not isinstance(vectors, int) or isinstance(vectors, bool) or vectors < 1:
        raise InputError(f"vectors {vectors!r}: give a whole number of at least 1")
    if pooling not in POOLINGS:
        raise unknown("pooling", str(pooling), POOLINGS)
    if ties not in TIES:
        raise unknown("rule for ties", str(ties), TIES)


def pool(z: Tensor, pooling: str, ties: str) -> Tensor:
    """Return the pooled vector, shape (d_out,), of vectors z, shape (p, d_out).

    ``"average"``, ``"max"`` and ``"min"`` are taken entry by entry. ``"l2"`` is the root mean
    square over the vectors: a plain L2 norm of p ones is sqrt(p), and so its gain would start at
    sqrt(p)**k and change the model. A root mean square has no sign, so its gains are never
    negative.

    Where vectors tie in ``"max"`` or ``"min"``, as all do at z = 1, `ties` chooses the
    subgradient. ``"first"`` is that of torch.max along a dimension: the first of the tied vectors
    takes the whole gradient, the others get zero. So only one vector trains in each entry, until
    another overtakes it. ``"even"`` is that of torch.amax: the tied vectors share the gradient
    evenly. From a common start they then stay tied, as vectors under ``"average"`` do.

    Args:
        z: The vectors. A single vector, shape (d_out,), comes back as it is.
        pooling: One of `POOLINGS`.
        ties: One of `TIES`; no matter but for ``"max"`` and ``"min"``.
    """
    if z.ndim == 1:
        return z
    if pooling == "average":
        return z.mean(0)
    if pooling == "l2":
        # Not sqrt(mean(z**2)): its gradient at zero is not a number, the norm's is zero. Over the
        # norm of ones, so that ones give 1 to the bit: it may differ from sqrt(p) by rounding.
        ones = torch.ones_like(z)
        return torch.linalg.vector_norm(z, dim=0) / torch.linalg.vector_norm(ones, dim=0)
    if ties == "even":
        return z.amax(0) if pooling == "max" else z.amin(0)
    return (z.max(0) if pooling == "max" else z.min(0)).values


def shares(vectors: int, pooling: str, ties: str) -> Tensor:
    """Return the derivative of the pooled vector by each vector at z = 1: float64, shape (p,).

    d mean/dz_i = 1/p; d r.m.s./dz_i = z_i / (p r.m.s.) = 1/p; ties shared evenly give 1/p, ties
    that the first takes give (1, 0, ..., 0). The kernel of p pooled vectors is that of one vector
    times the sum of the squares: K/p, and K where the first takes all.
    """
    if pooling in ("max", "min") and ties == "first":
        return torch.eye(1, vectors, dtype=torch.float64)[0]
    return torch.full((vectors,), 1 / vectors, dtype=torch.float64)
