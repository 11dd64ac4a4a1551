"""How much of a tuning is a Propulsion: a layer's update against one gain per output neuron.

A Propulsion turns neuron j, its weights and bias (w_j, b_j), into g_j (w_j, b_j). From the layer
before and after a tuning, D = W1 - W0, the best gains, the share of |D|**2 that they explain, and
what a random direction per neuron explains, have closed forms; so has the closest update of each
rank, the best that a LoRA could do. One layer at a time; sums in float64; results are small and add
up over layers (`total_update`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass

import numpy as np
import torch
from torch import Tensor

from ntk_propulsion.theory.changes import (
    LayerWeights,
    TensorChange,
    changes_of,
    neuron_blocks,
    ratio,
)
from ntk_propulsion.theory.inputs import Array
from ntk_propulsion.theory.rounding import MODEL, STANDS_OUT, Precision
from ntk_propulsion.theory.update_spectrum import LowRank, UpdateSpectrum, low_rank_of, spectrum_of

_EXACT = Precision(torch.float64)
Seed = int | Sequence[int] | np.random.Generator


@dataclass(frozen=True)
class Explained:
    """Squared norms of an update and of the parts that one number per neuron explains; they add up.

    Attributes:
        base: |W0|**2.
        update: |W1 - W0|**2.
        propulsion: The part along the neurons themselves: that of the best gains.
        drawn: The part along one random direction per neuron, drawn from the seed.
        expected: Expectation of that part over directions: |D_j|**2 / d for each neuron.
        variance: Its variance, 2 (d - 1) / (d**2 (d + 2)) |D_j|**4 for each: a squared cosine with
            a uniform direction in d dimensions is Beta(1/2, (d - 1)/2).
        rounding: The part that storing W1 is expected to have made; NaN where that is not known.
        rounding_along: What the best gains are expected to explain of it.
        base_rounding: What storing W0 may have made, where it is stored more coarsely than W1.
    """

    base: float = 0.0
    update: float = 0.0
    propulsion: float = 0.0
    drawn: float = 0.0
    expected: float = 0.0
    variance: float = 0.0
    rounding: float = 0.0
    rounding_along: float = 0.0
    base_rounding: float = 0.0

    def __add__(self, other: Explained) -> Explained:
        return Explained(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def relative_norm(self) -> float | None:
        """|W1 - W0| / |W0|; None for W0 = 0."""
        return float(np.sqrt(self.update / self.base)) if self.base else None

    @property
    def share(self) -> float | None:
        """The share of the update that a Propulsion explains, in [0, 1]; None for no update."""
        return self._share(self.propulsion)

    @property
    def expected_share(self) -> float | None:
        """The share that a random direction per neuron explains on average: 1 / d in one layer."""
        return self._share(self.expected)

    @property
    def drawn_share(self) -> float | None:
        """The share that the drawn directions explain."""
        return self._share(self.drawn)

    @property
    def times_expected(self) -> float | None:
        """How many times what a random direction is expected to explain; None for no update."""
        return self.propulsion / self.expected if self.update else None

    @property
    def deviations(self) -> float | None:
        """How many standard deviations above chance the share lies; None where chance has none.

        Chance is a direction without preference. Weights and updates prefer the same inputs, so a
        value far from 0 says that the share is no accident, not that it is large: see `share`.
        """
        excess = self.propulsion - self.expected
        return float(excess / np.sqrt(self.variance)) if self.variance else None

    @property
    def rounding_share(self) -> float | None:
        """The share of the update that storing it is expected to have made; None for no update."""
        return self.rounding / self.update if self.update else None

    @property
    def stands_out(self) -> bool:
        """Whether the update stands out of rounding: see `ntk_propulsion.theory.rounding`."""
        noise = self.rounding + self.base_rounding
        return self.update > 0 and self.update - noise >= STANDS_OUT * noise

    @property
    def share_beyond_rounding(self) -> float | None:
        """The share that a Propulsion explains of what rounding does not; None where too little is.

        Of a merged Propulsion it is 1, whatever the precision: what its gains leave is rounding's.
        """
        beyond = self.update - self.rounding
        if not self.update or not beyond >= STANDS_OUT * self.rounding:
            return None
        left = beyond - (self.propulsion - self.rounding_along)
        unsure = MODEL * (self.rounding - self.rounding_along)
        return min(max(1 - max(left - unsure, 0.0) / beyond, 0.0), 1.0)

    def _share(self, part: float) -> float | None:
        return min(part / self.update, 1.0) if self.update else None


@dataclass(frozen=True)
class ScalingFit:
    """The Propulsion nearest to an update.

    Attributes:
        gains: g_j = <v_j, v_j'> / |v_j|**2, (d_out,): the factor that brings neuron v_j nearest to
            what it became. 1 where v_j is zero, for no gain moves it.
        explained: What those gains explain of the update.
    """

    gains: Array
    explained: Explained


@dataclass(frozen=True)
class LayerUpdate:
    """What a tuning did to one layer.

    Attributes:
        kind: As `LayerWeights` has it.
        d_out: Number of output neurons: the parameters of a Propulsion here.
        d_in: Number of inputs; the vocabulary for an embedding.
        weight_change: Size of the weight's change.
        bias_change: That of the bias, where there is one.
        weights: The nearest Propulsion of the weight alone. None for non-finite entries.
        neurons: That of weight and bias, with one gain for both as Propulsion has it. Likewise.
        spectrum: Of the weight's update. None for non-finite entries, no change, or not asked for.
        low_rank: The closest weight updates of low rank. Likewise.
    """

    kind: str
    d_out: int
    d_in: int
    weight_change: TensorChange
    bias_change: TensorChange | None
    weights: ScalingFit | None
    neurons: ScalingFit | None
    spectrum: UpdateSpectrum | None
    low_rank: LowRank | None

    @property
    def matching_rank(self) -> float | None:
        """The rank whose closest update explains as much of the weight as the best gains do."""
        if self.low_rank is None or self.weights is None or self.weights.explained.share is None:
            return None
        return self.low_rank.matching_rank(self.weights.explained.share)


def layer_update(
    before: LayerWeights,
    after: LayerWeights,
    seed: Seed = 0,
    *,
    spectrum: bool = True,
    precision: Precision | None = None,
) -> LayerUpdate:
    """Measure how much of a layer's update a Propulsion, and each rank, explains.

    Args:
        before: The layer before the tuning.
        after: The same layer after it.
        seed: Of the random directions. Give each layer its own, or one generator to all: layers of
            a size would else draw alike, and `Explained.variance` of their sum be too small.
        spectrum: Whether to compute singular values, which cost far more than the rest and a
            float64 copy or two of the weight.
        precision: How the weights were stored; None: as their type says.

    Raises:
        InputError: Kinds or shapes differ or do not fit, or only one side has a bias.
    """
    old, new = before.neurons(), after.neurons()
    weight_change, bias_change = changes_of(before, after, old)
    d_out, d_in = old.shape
    changes = [change for change in (weight_change, bias_change) if change is not None]
    if any(change.norm is None for change in changes):
        return LayerUpdate(
            before.kind, d_out, d_in, weight_change, bias_change, None, None, None, None
        )
    rng = np.random.default_rng(seed)
    precision = precision or Precision(new.dtype)
    sums = _neuron_sums(old, new, rng, precision if weight_change.norm else _EXACT)
    weights = neurons = _fit(sums, d_in)
    if before.bias is not None and after.bias is not None:
        rounded = precision if bias_change and bias_change.norm else _EXACT
        biases = _neuron_sums(before.bias[:, None], after.bias[:, None], rng, rounded)
        neurons = _fit(sums + biases, d_in + 1)
    found = spectrum_of(old, new, precision) if spectrum and weights.explained.update else None
    low_rank = None if found is None else low_rank_of(found.values, d_in + d_out)
    return LayerUpdate(
        before.kind, d_out, d_in, weight_change, bias_change, weights, neurons, found, low_rank
    )


@dataclass(frozen=True)
class UpdateTotal:
    """What a tuning did to several layers: squared norms added, then divided.

    Attributes:
        layers: How many layers are in it.
        left_out: How many were not, for non-finite entries.
        weights: Weights alone.
        neurons: Weights and biases. Add ``Explained(update=|D|**2)`` for what no Propulsion scales
            (norms, say) to have the share of the whole tuning.
        low_rank: Closest weight updates of one rank in all layers; None where no layer has one.
        parameters: Of a Propulsion of all these layers: the sum of d_out.
    """

    layers: int
    left_out: int
    weights: Explained
    neurons: Explained
    low_rank: LowRank | None
    parameters: int


def total_update(updates: Iterable[LayerUpdate]) -> UpdateTotal:
    """Add the updates of layers up. Count a weight that two layers share once."""
    layers = left_out = parameters = 0
    weights, neurons, low_rank = Explained(), Explained(), None
    for each in updates:
        if each.weights is None or each.neurons is None:
            left_out += 1
            continue
        layers, parameters = layers + 1, parameters + each.d_out
        weights, neurons = weights + each.weights.explained, neurons + each.neurons.explained
        if each.low_rank is not None:
            low_rank = each.low_rank if low_rank is None else low_rank + each.low_rank
    return UpdateTotal(layers, left_out, weights, neurons, low_rank, parameters)


def _neuron_sums(old: Tensor, new: Tensor, rng: np.random.Generator, precision: Precision) -> Array:
    """Return, for neurons v with update D and random u, |v|**2, <v, D>, |D|**2, |u|**2, <u, D>.

    And for errors e of rounding, expected |e|**2 and <v, e>**2, and |e|**2 of the base's. Shape (8,
    d_out). Those of weight and bias add up to those of both together.
    """
    blocks = []
    for w, delta in neuron_blocks(old, new):
        u = rng.standard_normal(w.shape)
        pairs = ((w, w), (w, delta), (delta, delta), (u, u), (u, delta))
        errors = precision.after(w + delta)
        blocks.append(
            [
                *(np.einsum("ji,ji->j", a, b) for a, b in pairs),
                errors.sum(1),
                np.einsum("ji,ji->j", w**2, errors),
                precision.before(w).sum(1),
            ]
        )
    return np.concatenate(blocks, axis=1)


def _fit(sums: Array, d: int) -> ScalingFit:
    base, along, update, drawn_base, drawn_along, errors, errors_along, base_errors = sums
    explained = Explained(
        base=float(base.sum()),
        update=float(update.sum()),
        propulsion=_projected(along, base, update),
        drawn=_projected(drawn_along, drawn_base, update),
        expected=float(update.sum() / d),
        variance=float(2 * (d - 1) / (d**2 * (d + 2)) * np.sum(update**2)),
        rounding=float(errors.sum()),
        rounding_along=float(ratio(errors_along, base).sum()),
        base_rounding=float(base_errors.sum()),
    )
    return ScalingFit(1 + ratio(along, base), explained)


def _projected(along: Array, base: Array, update: Array) -> float:
    """Sum the squared lengths of updates along directions; rounding never exceeds the updates'."""
    return float(np.minimum(ratio(along, base) * along, update).sum())
