"""The singular values of a layer's update: its ranks, and the closest update of each rank."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from torch import Tensor

from ntk_propulsion.errors import InputError
from ntk_propulsion.theory.changes import neuron_blocks
from ntk_propulsion.theory.inputs import Array
from ntk_propulsion.theory.rounding import MODEL, STANDS_OUT, Precision, RoundingNoise

RANKS = (1, 2, 4, 8, 16, 32)
ROW = 4.0
GAP = 2.0
"""How far above the edge of rounding the least singular value that counts must lie for a rank to be
settled: a spectrum that decays into rounding has one just above it. Ours."""


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
        rounding: What rounding alone may leave as a singular value: the edge of
            `ntk_propulsion.theory.rounding.RoundingNoise`, and what computing the update in the
            stored precision and the values in float64 adds. NaN where nobody knows how the numbers
            were rounded.
        noise: The squared norm that rounding is expected to leave, NaN likewise.
        computing: What computing the update in the stored precision may leave, NaN likewise.
        shape: (d_out, d_in).
        moved: How many rows and columns hold more than `ROW` times what rounding is expected to
            leave of them: a few rows that were trained have a low rank that is no factors'.
    """

    values: Array
    rounding: float
    noise: float
    computing: float
    shape: tuple[int, int]
    moved: tuple[int, int]

    @property
    def shares(self) -> Array:
        """Share of each direction in the squared norm, largest first."""
        energies = (self.values / self.values[0]) ** 2
        return np.asarray(energies / energies.sum())

    @property
    def rank(self) -> int | None:
        """How many singular values stand out of rounding: r for a merged LoRA of rank r.

        None where nobody knows how the numbers were rounded.
        """
        return None if np.isnan(self.rounding) else int((self.values > self.rounding).sum())

    @property
    def is_settled(self) -> bool:
        """Whether the update has that rank, not a higher one of which rounding hides the rest.

        So it is where the update stands out of rounding, so that one of full rank and its size
        would have been seen; where rounding explains what the closest update of that rank leaves;
        and where the least singular value that counts is well above rounding's edge.
        """
        rank = self.rank
        if not rank:
            return False
        squares = self.values**2
        energy, rest = float(squares.sum()), float(squares[rank:].sum())
        noise = RoundingNoise(self.noise, self.rounding).rest(rank, self.shape)
        return bool(
            energy - self.noise >= STANDS_OUT * self.noise
            and rest <= (1 + MODEL) * noise + self.computing
            and self.values[rank - 1] >= GAP * self.rounding
        )

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


def spectrum_of(old: Tensor, new: Tensor, precision: Precision) -> UpdateSpectrum:
    """Return the spectrum of a weight's update, both (d_out, d_in)."""
    delta = np.empty(tuple(old.shape))
    energies = np.zeros(delta.shape[0]), np.zeros(delta.shape[1])
    rows, columns = np.zeros(delta.shape[0]), np.zeros(delta.shape[1])
    done = 0
    for w, part in neuron_blocks(old, new):
        block = slice(done, done := done + len(part))
        delta[block] = part
        errors = precision.after(w + part)
        rows[block] = errors.sum(1)
        columns += errors.sum(0)
        energies[0][block] = np.sum(part**2, axis=1)
        energies[1][:] += np.sum(part**2, axis=0)
    tall = delta if delta.shape[0] >= delta.shape[1] else delta.T  # LAPACK is faster on these
    values = scipy.linalg.svdvals(tall, overwrite_a=True, check_finite=False)
    noise = RoundingNoise.of(rows, columns)
    shape = (delta.shape[0], delta.shape[1])
    computing = precision.computing(float(np.sum(values**2)))
    spread = np.sqrt(computing / delta.size) * np.sqrt(shape).sum()
    least = np.finfo(np.float64).eps * max(shape) * values[0]
    edge = float(np.hypot(noise.edge, spread) + least)  # NaN stays
    computing += len(values) * least**2
    each = zip(energies, (rows, columns), strict=True)
    moved = [int((energy > ROW * expected).sum()) for energy, expected in each]
    return UpdateSpectrum(values, edge, noise.energy, computing, shape, (moved[0], moved[1]))


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
