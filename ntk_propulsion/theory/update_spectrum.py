"""The singular values of a layer's update: its ranks, and the closest update of each rank."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from ntk_propulsion.errors import InputError
from ntk_propulsion.theory.changes import neuron_blocks
from ntk_propulsion.theory.inputs import Array

RANKS = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class LowRank:
    """What the closest update of each rank explains (Eckart and Young), and what it costs.

    A LoRA of rank r can be no closer. Entry r - 1 of both arrays is of rank r. They add up to one
    rank for all layers; a layer of lower full rank keeps its last.

    Attributes:
        explained: The r largest squared singular values, summed, (R,).
        parameters: r (d_in + d_out), (R,).
        update: |W1 - W0|**2.
    """

    explained: Array
    parameters: Array
    update: float

    def __add__(self, other: LowRank) -> LowRank:
        size = max(len(self.explained), len(other.explained))
        return LowRank(
            _extended(self.explained, size) + _extended(other.explained, size),
            _extended(self.parameters, size) + _extended(other.parameters, size),
            self.update + other.update,
        )

    def share(self, rank: int) -> float:
        """Return the share of the update that the closest update of this rank explains.

        Raises:
            InputError: For a rank below 1.
        """
        return min(float(self._at(self.explained, rank)) / self.update, 1.0)

    def cost(self, rank: int) -> int:
        """Return its number of parameters; above full rank no more than there."""
        return int(self._at(self.parameters, rank))

    def matching_rank(self, share: float) -> float:
        """Return the rank that explains this share, linear between whole ranks, 0 for none.

        Below 1: even the closest update of rank one explains more.

        Raises:
            InputError: For a share outside [0, 1].
        """
        if not 0 <= share <= 1:
            raise InputError(f"a share lies in [0, 1], not at {share}")
        shares = np.append(0.0, np.minimum(self.explained / self.explained[-1], 1.0))
        first = int(np.searchsorted(shares, share))
        if first == 0:
            return 0.0
        below, above = shares[first - 1], shares[first]
        return float(first - 1 + (share - below) / (above - below))

    def _at(self, values: Array, rank: int) -> float:
        if rank < 1:
            raise InputError(f"a rank is at least 1, not {rank}")
        return values[min(rank, len(values)) - 1]


@dataclass(frozen=True)
class UpdateSpectrum:
    """The singular values of an update, and three effective ranks of their squares' shares.

    stable rank <= participation ratio <= entropy rank <= number of values: Renyi's orders infinity,
    2, 1 and 0 of one distribution.

    Attributes:
        values: Largest first, (min(d_in, d_out),).
        rounding: What rounding alone may leave as a singular value: half an epsilon of the stored
            precision times W1's root mean square entry times sqrt(d_in) + sqrt(d_out); or, where
            that is more, float64's in computing the values.
    """

    values: Array
    rounding: float

    @property
    def shares(self) -> Array:
        """Share of each direction in the squared norm, largest first."""
        energies = (self.values / self.values[0]) ** 2
        return np.asarray(energies / energies.sum())

    @property
    def rank(self) -> int:
        """How many singular values stand out of rounding: r for a merged LoRA of rank r."""
        return int((self.values > self.rounding).sum())

    @property
    def stable_rank(self) -> float:
        """|D|**2 over the squared spectral norm."""
        return float(1 / self.shares[0])

    @property
    def participation_ratio(self) -> float:
        """|D|**4 / |D D'|**2."""
        return float(1 / np.sum(self.shares**2))

    @property
    def entropy_rank(self) -> float:
        """exp(-sum p log p) over the shares p."""
        p = self.shares[self.shares > 0]
        return float(np.exp(-np.sum(p * np.log(p))))


def spectrum_of(old: Tensor, new: Tensor) -> UpdateSpectrum:
    """Return the spectrum of a weight's update, both (d_out, d_in)."""
    delta = np.empty(tuple(old.shape))
    done, square = 0, 0.0
    for w, part in neuron_blocks(old, new):
        delta[done : done + len(part)] = part
        done, square = done + len(part), square + float(np.sum((w + part) ** 2))
    tall = delta if delta.shape[0] >= delta.shape[1] else delta.T  # LAPACK is faster on these
    values = scipy.linalg.svdvals(tall, overwrite_a=True, check_finite=False)
    epsilon = max(torch.finfo(tensor.dtype).eps for tensor in (old, new))
    spread = np.sqrt(square / delta.size) * np.sqrt(delta.shape).sum()
    computing = np.finfo(np.float64).eps * max(delta.shape) * values[0]
    return UpdateSpectrum(values, max(float(epsilon / 2 * spread), float(computing)))


def low_rank_of(values: Array, sides: int) -> LowRank:
    """Return what updates of each rank explain.

    Args:
        values: Singular values, from the largest.
        sides: d_out + d_in, the numbers that a rank costs.
    """
    explained = np.cumsum(values**2)
    return LowRank(explained, sides * np.arange(1.0, len(values) + 1), float(explained[-1]))


def _extended(values: Array, size: int) -> Array:
    return np.pad(values, (0, size - len(values)), mode="edge")
