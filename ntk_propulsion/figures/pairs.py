"""Two kernels by pairs of examples: what heat maps show, and what a page lets one point at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ntk_propulsion.figures.plot import Record
from ntk_propulsion.theory.inputs import Array

CLIP = 99.0  # percentile of |K_F| that ends the colour scale: one extreme text hides no other


def per_pair(kernel: Array, n: int) -> Array:
    """Sum a kernel's ``(N*O, N*O)`` over equal outputs: the ``(N, N)`` trace per example pair."""
    outputs = len(kernel) // n
    return np.einsum("iojo->ij", kernel.reshape(n, outputs, n, outputs))


@dataclass(frozen=True, eq=False)
class Pairs:
    """Two kernels by pairs of examples.

    Attributes:
        full: K_F by pair, (N, N), examples in `order`.
        other: K_P likewise.
        scale: What K_P is multiplied by to come nearest to K_F.
        order: The row in the kernels of each example, (N,).
    """

    full: Array
    other: Array
    scale: float
    order: np.ndarray

    @classmethod
    def of(cls, full: Array, other: Array, scale: float, order: np.ndarray) -> Pairs:
        """Sum kernels (N*O, N*O) over equal outputs and sort their examples into an order, (N,)."""
        place = np.ix_(order, order)
        a, b = (per_pair(kernel, len(order))[place] for kernel in (full, other))
        return cls(a, b, scale, order)

    @property
    def difference(self) -> Array:
        """K_F - s K_P, (N, N)."""
        return self.full - self.scale * self.other

    @property
    def limit(self) -> float:
        """Where the colours end, on both sides of zero."""
        return float(np.percentile(np.abs(self.full), CLIP)) or 1.0

    def rows(self) -> list[Record]:
        """Return each pair once (kernels are symmetric), to six digits."""
        panels = {"K_F": self.full, "K_P": self.other, "difference": self.difference}
        return [
            {"first": int(self.order[i]), "second": int(self.order[j])}
            | {name: float(f"{panel[i, j]:.6g}") for name, panel in panels.items()}
            for i, j in zip(*np.triu_indices(len(self.order)), strict=True)
        ]
