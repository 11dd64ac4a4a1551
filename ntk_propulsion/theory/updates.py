"""How much of a tuning is a Propulsion: a layer's update against one gain per output neuron.

A Propulsion turns neuron j, its weights and bias (w_j, b_j), into g_j (w_j, b_j). From the layer
before and after a tuning, D = W1 - W0, the best gains, the share of |D|**2 that they explain, and
what a random direction per neuron explains, have closed forms; so has the closest update of each
rank, the best that a LoRA could do. One layer at a time; sums in float64; results are small and add
up over layers (`total_update`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from ntk_propulsion.errors import InputError, unknown
from ntk_propulsion.theory.inputs import Array

OUTPUT_AXIS = {"linear": 0, "conv1d": 1, "embedding": 1}
"""Which axis of the stored weight counts outputs; Conv1D keeps (d_in, d_out), a table (V, d)."""
RANKS = (1, 2, 4, 8, 16, 32)
BLOCK = 2**21  # entries of a weight that are in float64 at a time, where no copy is needed

Seed = int | Sequence[int] | np.random.Generator


@dataclass(frozen=True)
class LayerWeights:
    """A layer's parameters as they are stored.

    Attributes:
        weight: (d_out, d_in) for a linear layer, (d_in, d_out) for a Conv1D, (vocabulary, d_out)
            for an embedding, whose d_in is the size of its vocabulary.
        bias: (d_out,), where there is one.
        kind: One of `OUTPUT_AXIS`.
    """

    weight: Tensor
    bias: Tensor | None = None
    kind: str = "linear"

    def neurons(self) -> Tensor:
        """Return a view of the weight with a row per output neuron, (d_out, d_in).

        Raises:
            InputError: The kind is unknown, or the weight is no matrix of floating-point numbers.
        """
        if self.kind not in OUTPUT_AXIS:
            raise unknown("kind of layer", self.kind, OUTPUT_AXIS)
        shape, dtype = tuple(self.weight.shape), self.weight.dtype
        if len(shape) != 2 or 0 in shape or not dtype.is_floating_point:
            raise InputError(f"a {dtype} weight of shape {shape} is no matrix of real numbers")
        return self.weight.T if OUTPUT_AXIS[self.kind] else self.weight


@dataclass(frozen=True)
class TensorChange:
    """How far one tensor of any shape moved.

    Attributes:
        changed: Whether any bit differs. Where the two are stored in different precisions, the
            first is rounded to the second's before: then a change below that is none.
        nonfinite_before: Number of NaN and infinite entries of the first.
        nonfinite_after: The same of the second.
        base_norm: Frobenius norm of the first, None where either holds non-finite entries.
        norm: Frobenius norm of the difference, likewise.
        largest: Largest absolute entry of the difference, likewise.
    """

    changed: bool
    nonfinite_before: int
    nonfinite_after: int
    base_norm: float | None
    norm: float | None
    largest: float | None

    @property
    def relative_norm(self) -> float | None:
        """|W1 - W0| / |W0|, None where it is not defined."""
        return self.norm / self.base_norm if self.norm is not None and self.base_norm else None


def tensor_change(before: Tensor, after: Tensor) -> TensorChange:
    """Compare a parameter before and after a tuning.

    Raises:
        InputError: The shapes differ.
    """
    if before.shape != after.shape:
        raise InputError(
            f"shapes {tuple(before.shape)} before and {tuple(after.shape)} after the tuning "
            "differ: compare checkpoints of one architecture"
        )
    old, new = before.detach().reshape(1, -1), after.detach().reshape(1, -1)
    bad, bad_after = (int((~tensor.isfinite()).sum()) for tensor in (old, new))
    changed = not torch.equal(_bits(old.to(new.dtype)), _bits(new))
    if bad or bad_after:
        return TensorChange(changed, bad, bad_after, None, None, None)
    squares, largest = np.zeros(2), 0.0
    for start in range(0, old.shape[1], BLOCK):
        w = _double(old[:, start : start + BLOCK])
        delta = _double(new[:, start : start + BLOCK]) - w
        squares += (np.sum(w**2), np.sum(delta**2))
        largest = max(largest, float(np.abs(delta).max()))
    base_norm, norm = np.sqrt(squares).tolist()
    return TensorChange(changed, bad, bad_after, base_norm, norm, largest)


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
    """

    base: float = 0.0
    update: float = 0.0
    propulsion: float = 0.0
    drawn: float = 0.0
    expected: float = 0.0
    variance: float = 0.0

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
    before: LayerWeights, after: LayerWeights, seed: Seed = 0, *, spectrum: bool = True
) -> LayerUpdate:
    """Measure how much of a layer's update a Propulsion, and each rank, explains.

    Args:
        before: The layer before the tuning.
        after: The same layer after it.
        seed: Of the random directions. Give each layer its own, or one generator to all: layers of
            a size would else draw alike, and `Explained.variance` of their sum be too small.
        spectrum: Whether to compute singular values, which cost far more than the rest and a
            float64 copy or two of the weight.

    Raises:
        InputError: Kinds or shapes differ or do not fit, or only one side has a bias.
    """
    old, new = before.neurons(), after.neurons()
    weight_change, bias_change = _changes(before, after, old)
    d_out, d_in = old.shape
    changes = [change for change in (weight_change, bias_change) if change is not None]
    if any(change.norm is None for change in changes):
        return LayerUpdate(
            before.kind, d_out, d_in, weight_change, bias_change, None, None, None, None
        )
    rng = np.random.default_rng(seed)
    sums = _neuron_sums(old, new, rng)
    weights = neurons = _fit(sums, d_in)
    if before.bias is not None and after.bias is not None:
        biases = _neuron_sums(before.bias[:, None], after.bias[:, None], rng)
        neurons = _fit(sums + biases, d_in + 1)
    found = _spectrum(old, new) if spectrum and weights.explained.update else None
    low_rank = None if found is None else _low_rank(found.values, d_in + d_out)
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


def _changes(
    before: LayerWeights, after: LayerWeights, old: Tensor
) -> tuple[TensorChange, TensorChange | None]:
    if before.kind != after.kind:
        raise InputError(f"a {before.kind} layer became {after.kind}: give one layer, twice")
    change = tensor_change(before.weight, after.weight)
    if before.bias is None and after.bias is None:
        return change, None
    if before.bias is None or after.bias is None:
        raise InputError("only one of the two layers has a bias: give both or none")
    if before.bias.shape != old.shape[:1]:
        raise InputError(
            f"a bias of shape {tuple(before.bias.shape)} does not fit {old.shape[0]} neurons"
        )
    return change, tensor_change(before.bias, after.bias)


def _neuron_sums(old: Tensor, new: Tensor, rng: np.random.Generator) -> Array:
    """Return, for neurons v with update D and random u, |v|**2, <v, D>, |D|**2, |u|**2, <u, D>.

    Shape (5, d_out). Those of weight and bias add up to those of both together.
    """
    blocks = []
    for w, delta in _blocks(old, new):
        u = rng.standard_normal(w.shape)
        pairs = ((w, w), (w, delta), (delta, delta), (u, u), (u, delta))
        blocks.append([np.einsum("ji,ji->j", a, b) for a, b in pairs])
    return np.concatenate(blocks, axis=1)


def _blocks(old: Tensor, new: Tensor) -> Iterator[tuple[Array, Array]]:
    """Yield W0 and W1 - W0 in float64, some neurons at a time."""
    rows = max(1, BLOCK // old.shape[1])
    for start in range(0, len(old), rows):
        w = _double(old[start : start + rows])
        yield w, _double(new[start : start + rows]) - w


def _fit(sums: Array, d: int) -> ScalingFit:
    base, along, update, drawn_base, drawn_along = sums
    explained = Explained(
        base=float(base.sum()),
        update=float(update.sum()),
        propulsion=_projected(along, base, update),
        drawn=_projected(drawn_along, drawn_base, update),
        expected=float(update.sum() / d),
        variance=float(2 * (d - 1) / (d**2 * (d + 2)) * np.sum(update**2)),
    )
    return ScalingFit(1 + _ratio(along, base), explained)


def _projected(along: Array, base: Array, update: Array) -> float:
    """Sum the squared lengths of updates along directions; rounding never exceeds the updates'."""
    return float(np.minimum(_ratio(along, base) * along, update).sum())


def _ratio(a: Array, b: Array) -> Array:
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


def _spectrum(old: Tensor, new: Tensor) -> UpdateSpectrum:
    delta = np.empty(tuple(old.shape))
    done, square = 0, 0.0
    for w, part in _blocks(old, new):
        delta[done : done + len(part)] = part
        done, square = done + len(part), square + float(np.sum((w + part) ** 2))
    tall = delta if delta.shape[0] >= delta.shape[1] else delta.T  # LAPACK is faster on these
    values = scipy.linalg.svdvals(tall, overwrite_a=True, check_finite=False)
    epsilon = max(torch.finfo(tensor.dtype).eps for tensor in (old, new))
    spread = np.sqrt(square / delta.size) * np.sqrt(delta.shape).sum()
    computing = np.finfo(np.float64).eps * max(delta.shape) * values[0]
    return UpdateSpectrum(values, max(float(epsilon / 2 * spread), float(computing)))


def _low_rank(values: Array, sides: int) -> LowRank:
    explained = np.cumsum(values**2)
    return LowRank(explained, sides * np.arange(1.0, len(values) + 1), float(explained[-1]))


def _extended(values: Array, size: int) -> Array:
    return np.pad(values, (0, size - len(values)), mode="edge")


def _double(tensor: Tensor) -> Array:
    return tensor.detach().to("cpu", torch.float64).numpy()


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(torch.uint8)
