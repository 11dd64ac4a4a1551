"""What a tuning changed of a tensor: how many entries, how far, which became non-finite."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ntk_propulsion.errors import InputError, unknown
from ntk_propulsion.theory.inputs import Array

OUTPUT_AXIS = {"linear": 0, "conv1d": 1, "embedding": 1}
"""Which axis of the stored weight counts outputs; Conv1D keeps (d_in, d_out), a table (V, d)."""
BLOCK = 2**21  # entries of a weight that are in float64 at a time, where no copy is needed


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
        changed: Whether any bit differs from what storing the first as the second is stored gives.
        rounded: Whether the two differ by that storing alone.
        nonfinite_before: Number of NaN and infinite entries of the first.
        nonfinite_after: The same of the second.
        base_norm: Frobenius norm of the first, None where either holds non-finite entries.
        norm: Frobenius norm of the difference, likewise.
        largest: Largest absolute entry of the difference, likewise.
        tuned_norm: Frobenius norm of the second, likewise.
    """

    changed: bool
    rounded: bool
    nonfinite_before: int
    nonfinite_after: int
    base_norm: float | None
    norm: float | None
    largest: float | None
    tuned_norm: float | None

    @property
    def relative_norm(self) -> float | None:
        """|W1 - W0| / |W0|, None where it is not defined."""
        return self.norm / self.base_norm if self.norm is not None and self.base_norm else None

    @property
    def correlation(self) -> float | None:
        """The cosine between the two, None where it is not defined."""
        if self.norm is None or not self.base_norm or not self.tuned_norm:
            return None
        along = self.base_norm**2 + self.tuned_norm**2 - self.norm**2
        return max(-1.0, min(1.0, along / (2 * self.base_norm * self.tuned_norm)))

    @property
    def size_ratio(self) -> float | None:
        """|W1| over |W0|, None where it is not defined."""
        return self.tuned_norm / self.base_norm if self.base_norm and self.tuned_norm else None

    @property
    def distance(self) -> float | None:
        """|W1 - W0| over the smaller of |W0| and |W1|, None where it is not defined."""
        if self.norm is None or self.base_norm is None or self.tuned_norm is None:
            return None
        smaller = min(self.base_norm, self.tuned_norm)
        return self.norm / smaller if smaller else None


def tensor_change(before: Tensor, after: Tensor, stored: Tensor | None = None) -> TensorChange:
    """Compare a parameter before and after a tuning.

    Args:
        before: The parameter.
        after: The same, tuned.
        stored: What storing the first as the second is stored gives; None: it in that one's dtype.

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
    stored = (old if stored is None else stored.detach().reshape(1, -1)).to(new.dtype)
    changed = not torch.equal(_bits(stored), _bits(new))
    if bad or bad_after:
        rounded = not changed and bad != bad_after
        return TensorChange(changed, rounded, bad, bad_after, None, None, None, None)
    squares, largest = np.zeros(3), 0.0
    for start in range(0, old.shape[1], BLOCK):
        w = double(old[:, start : start + BLOCK])
        tuned = double(new[:, start : start + BLOCK])
        delta = tuned - w
        squares += (np.sum(w**2), np.sum(delta**2), np.sum(tuned**2))
        largest = max(largest, float(np.abs(delta).max()))
    base_norm, norm, tuned_norm = np.sqrt(squares).tolist()
    rounded = not changed and largest > 0
    return TensorChange(changed, rounded, bad, bad_after, base_norm, norm, largest, tuned_norm)


def changes_of(
    before: LayerWeights, after: LayerWeights, old: Tensor
) -> tuple[TensorChange, TensorChange | None]:
    """Return what changed of a layer's weight and of its bias, if it has one.

    Args:
        before: The layer.
        after: The same, tuned.
        old: Its weight, outputs first.

    Raises:
        InputError: The two do not fit each other.
    """
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


def ratio(a: Array, b: Array) -> Array:
    """Return a / b entry by entry, 0 where b is."""
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


def double(tensor: Tensor) -> Array:
    """Return a tensor as an array in double precision."""
    return tensor.detach().to("cpu", torch.float64).numpy()


def blocks(tensor: Tensor) -> Iterator[Array]:
    """Yield a tensor's entries in float64, some at a time."""
    flat = tensor.detach().reshape(-1)
    for start in range(0, len(flat), BLOCK):
        yield double(flat[start : start + BLOCK])


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(torch.uint8)


def neuron_blocks(old: Tensor, new: Tensor) -> Iterator[tuple[Array, Array]]:
    """Yield W0 and W1 - W0 in float64, some neurons at a time."""
    rows = max(1, BLOCK // old.shape[1])
    for start in range(0, len(old), rows):
        w = double(old[start : start + rows])
        yield w, double(new[start : start + rows]) - w
