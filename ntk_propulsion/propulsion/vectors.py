"""Scaling vectors of a model or a checkpoint: one a layer, read and checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.models.roles import role_of
from ntk_propulsion.propulsion.layers import check_degree
from ntk_propulsion.propulsion.wrap import scalings

Source = nn.Module | Mapping[str, Tensor]
"""A wrapped model, or scaling vectors (d_out,) by module name."""
TOTAL = "total"


class Moved(NamedTuple):
    """One entry of a scaling vector; in JSON the three in a list.

    Attributes:
        module: The module's name in the plain model.
        neuron: Its index among the layer's outputs.
        z: Its scaling factor, before the degree.
    """

    module: str
    neuron: int
    z: float


class Row(NamedTuple):
    """A module's vector or, under the name `TOTAL`, all of them end to end."""

    module: str
    role: str
    parts: dict[str, Tensor]
    z: Tensor

    def entries(self, indices: Iterable[int]) -> tuple[Moved, ...]:
        """Return the entries at these places of z, with their own modules and neurons."""
        return tuple(Moved(*self._place(index), float(self.z[index])) for index in indices)

    def _place(self, index: int) -> tuple[str, int]:
        for name, z in self.parts.items():
            if index < len(z):
                return name, index
            index -= len(z)
        raise IndexError(index)


def read_vectors(source: Source, degree: float | None) -> tuple[dict[str, Tensor], int | None]:
    """Return the scaling vectors by module name, in float64, and their degree where it is known.

    Raises:
        InputError: There is none, one is not a vector or not finite, or the degree is not a whole
            number of at least 1 or not the model's.
    """
    asked = None if degree is None else check_degree(degree)
    if isinstance(source, nn.Module):
        layers = scalings(source)
        for name, scaling in layers.items():
            asked = scaling.degree if asked is None else asked
            if scaling.degree != asked:
                raise InputError(f"{name} has degree {scaling.degree}, not {asked}")
        source = {name: scaling.pooled() for name, scaling in layers.items()}
    if not source:
        raise InputError("no scaling vectors: wrap the model, or give vectors by module name")
    return {name: _vector(name, z) for name, z in source.items()}, asked


def _vector(name: str, z: Tensor) -> Tensor:
    z = torch.as_tensor(z).detach().to("cpu", torch.float64)
    if z.ndim != 1 or z.numel() == 0:
        raise InputError(f"scaling of {name} has shape {tuple(z.shape)}, not (d_out,)")
    if not z.isfinite().all():
        raise InputError(f"scaling of {name} holds NaN or infinite values")
    return z


def rows_of(vectors: dict[str, Tensor]) -> list[Row]:
    """Return a row per module and a last one over all of them."""
    rows = [Row(name, role_of(name), {name: z}, z) for name, z in vectors.items()]
    return [*rows, Row(TOTAL, TOTAL, vectors, torch.cat(list(vectors.values())))]


def scaling_of_gains(gains: Tensor, degree: float) -> Tensor:
    """Return the real z (d_out,) with z**degree = gains.

    The positive root of a positive gain; the negative one of a negative gain at an odd degree, and
    NaN at an even degree, which makes no negative gain.

    Raises:
        InputError: The degree is not a whole number of at least 1.
    """
    degree = check_degree(degree)
    gains = torch.as_tensor(gains, dtype=torch.float64)
    root = gains.abs() ** (1 / degree)
    return torch.where(gains >= 0, root, -root if degree % 2 else torch.nan)
