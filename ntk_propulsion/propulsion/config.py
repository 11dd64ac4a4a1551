"""What a Propulsion is made of: degree, positions, vectors, start, and what trains beside z."""

from __future__ import annotations

import dataclasses
import math
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ntk_propulsion.errors import InputError, unknown
from ntk_propulsion.propulsion.layers import check_degree
from ntk_propulsion.propulsion.pooling import check_pooling

SCHEMES = ("constant", "normal", "uniform")
BIASES = ("none", "scaled", "all")
POOLED = {"vectors": 1, "pooling": "average", "ties": "first"}
"""The settings of several vectors, at their defaults."""


@dataclass(frozen=True)
class Initialisation:
    """How the scaling vectors start.

    Attributes:
        scheme: ``"constant"`` (z = centre), ``"normal"`` (mean `centre`, standard deviation
            `spread`) or ``"uniform"`` (on centre - spread to centre + spread).
        centre: The value or the mean.
        spread: Zero for ``"constant"``, above zero otherwise.
        seed: Of the draw. A layer's values depend on seed and name only, not on the other layers.
    """

    scheme: str = "constant"
    centre: float = 1.0
    spread: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise unknown("initialisation", str(self.scheme), SCHEMES)
        if not isinstance(self.seed, int):
            raise InputError(f"initialisation seed {self.seed!r}: give a whole number")
        if not _is_finite(self.centre):
            raise InputError(f"initialisation centre {self.centre}: give a finite number")
        drawn = self.scheme != "constant"
        if not _is_finite(self.spread) or not (self.spread > 0 if drawn else self.spread == 0):
            needed = "above 0" if drawn else "0"
            raise InputError(f"initialisation spread {self.spread}: {self.scheme!r} needs {needed}")

    def draw(self, name: str, size: int) -> Tensor:
        """Return the first values of the scaling vector of layer `name`: float64, shape (size,)."""
        # The generator looks at 32 bits of its seed only, so seed and name go into one checksum.
        generator = torch.Generator().manual_seed(zlib.crc32(f"{self.seed} {name}".encode()))
        if self.scheme == "normal":
            noise = torch.randn(size, generator=generator, dtype=torch.float64)
        elif self.scheme == "uniform":
            noise = 2 * torch.rand(size, generator=generator, dtype=torch.float64) - 1
        else:
            noise = torch.zeros(size, dtype=torch.float64)
        return self.centre + self.spread * noise


@dataclass(frozen=True)
class PropulsionConfig:
    """The settings of a Propulsion.

    Attributes:
        degree: The power k of the gain z**k, a whole number of at least 1.
        positions: Which layers are scaled, as `ntk_propulsion.models.roles.select` takes them;
            one becomes a tuple of one.
        initialisation: The value that all of z starts at, or an `Initialisation`. The default, 1,
            leaves the model's outputs unchanged.
        biases: Which biases train beside z: ``"none"``, those of the ``"scaled"`` layers, or
            ``"all"`` of Linear and Conv1D layers (the public code's default).
        train_head: Whether the weights and biases of the head's layers train too.
        vectors: How many scaling vectors p each layer has. One is a z of shape (d_out,); several
            are a z of shape (p, d_out), and the gain is their pool to the power of the degree.
        pooling: How several become one: ``"average"``, ``"max"``, ``"min"`` or ``"l2"``. The last
            is the root mean square over the vectors, so that z = 1 leaves the model unchanged; a
            plain L2 norm would start at gains of sqrt(p)**degree.
        ties: Which vectors train where several are the maximum or minimum, as all are at z = 1:
            ``"first"``, only the first of them, until another overtakes it, or ``"even"``, all,
            with the gradient shared evenly.
    """

    degree: int = 15
    positions: str | tuple[str, ...] = ("all",)
    initialisation: float | Initialisation = 1.0
    biases: str = "none"
    train_head: bool = False
    vectors: int = 1
    pooling: str = "average"
    ties: str = "first"

    def __post_init__(self) -> None:
        positions = (self.positions,) if isinstance(self.positions, str) else tuple(self.positions)
        if not positions or not all(isinstance(position, str) for position in positions):
            raise InputError(f"positions {self.positions!r}: give at least one name or pattern")
        if self.biases not in BIASES:
            raise unknown("choice of biases", str(self.biases), BIASES)
        check_pooling(self.vectors, self.pooling, self.ties)
        if not isinstance(self.initialisation, Initialisation):
            object.__setattr__(self, "initialisation", _constant(self.initialisation).centre)
        object.__setattr__(self, "positions", positions)
        object.__setattr__(self, "degree", check_degree(self.degree))

    def initial(self, name: str, size: int) -> Tensor:
        """Return the first values of the scaling vectors of layer `name`, in float64.

        The shape is (size,) for one vector and (p, size) for p. Of drawn vectors each has its own
        draw; the first is the one that a single vector starts at.
        """
        scheme = self.initialisation
        scheme = scheme if isinstance(scheme, Initialisation) else _constant(scheme)
        rows = [scheme.draw(f"{name} {i}" if i else name, size) for i in range(self.vectors)]
        return torch.stack(rows) if self.vectors > 1 else rows[0]

    @property
    def starts_at_one(self) -> bool:
        """Whether all of z starts at 1, where the model's outputs are unchanged."""
        return self.initialisation in (1.0, Initialisation())

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values that JSON can hold.

        One vector, of which nothing is pooled, is written without `POOLED`: so were the adapters
        from before there was pooling, and their readers refuse settings that they do not know.
        """
        own = {field.name for field in dataclasses.fields(PropulsionConfig)}
        settings = {name: value for name, value in dataclasses.asdict(self).items() if name in own}
        settings["positions"] = list(self.positions)
        if all(settings[name] == default for name, default in POOLED.items()):
            return {name: value for name, value in settings.items() if name not in POOLED}
        return settings

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> PropulsionConfig:
        """Return the configuration that `to_dict` described.

        Raises:
            InputError: A setting is unknown or its value cannot be used.
        """
        values = _known(cls, settings)
        scheme = values.get("initialisation")
        if isinstance(scheme, Mapping):
            values["initialisation"] = Initialisation(**_known(Initialisation, scheme))
        return cls(**values)


def _constant(value: Any) -> Initialisation:
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"initialisation centre {value}: give a finite number")
    if not _is_finite(value):
        raise InputError(f"initialisation {value!r}: give a number or an Initialisation")
    return Initialisation(centre=float(value))


def _is_finite(value: Any) -> bool:
    """Tell whether this is a number that a float holds; a whole number may be larger."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) <= sys.float_info.max


def _known(kind: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(kind)]
    for name in settings:
        if name not in names:
            raise unknown("setting", str(name), names)
    return dict(settings)
