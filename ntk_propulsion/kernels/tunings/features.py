"""Tunings that train numbers which the model does not have yet, as features of its layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ntk_propulsion.errors import InputError, unknown
from ntk_propulsion.kernels.engine.binding import Binding, Feature, LayerUse
from ntk_propulsion.kernels.engine.jacobian import LinearBlock, example_major
from ntk_propulsion.kernels.tunings.tuning import Tuning, named_parameters
from ntk_propulsion.models.roles import is_mlp_output, module_roles, select
from ntk_propulsion.propulsion.layers import check_degree, output_size
from ntk_propulsion.propulsion.pooling import check_pooling, shares
from ntk_propulsion.propulsion.wrap import scalings

Positions = str | Iterable[str]


@dataclass(frozen=True)
class Propulsion(Tuning):
    """Scaling z**degree of the layers' outputs, at z = 1 (arXiv 2409.10927).

    J_z[no] = k z**(k-1) sum_t D_no[t] * Y_n[t] with Y the output before the scaling and D its
    cotangent after. With p vectors per layer p * d_out numbers train, and by the chain rule the
    block of vector i is J_z times the derivative of the pool by it: the kernel is K/p for average,
    l2 and ties shared evenly, and K itself where the first of the tied vectors takes the gradient
    of max or min, K the kernel of one vector.

    On a model that is wrapped already the kernel is that of its scaling vectors as they stand, and
    all settings are the model's own.

    Attributes:
        degree: The power k.
        positions: The scaled layers.
        vectors: p, as `PropulsionConfig` takes it, like ``pooling`` and ``ties``.
        pooling: How p vectors become one.
        ties: Which of equal vectors train under max and min; at z = 1 all are equal.
    """

    degree: int = 15
    positions: str | tuple[str, ...] = "all"
    vectors: int = 1
    pooling: str = "average"
    ties: str = "first"
    name: str = "propulsion"

    def __post_init__(self) -> None:
        check_degree(self.degree)
        check_pooling(self.vectors, self.pooling, self.ties)

    def bind(self, model: nn.Module) -> Binding:
        """Bind to the layers at the positions, or to the scaling vectors that exist."""
        wrapped = {id(scaling.z) for scaling in scalings(model).values()}
        if wrapped:
            return named_parameters(model, lambda name, p: id(p) in wrapped, self.name)
        modules = dict(model.named_modules())
        sizes = {name: output_size(modules[name]) for name in select(model, self.positions)}
        return Binding(
            features=tuple(
                Feature(name, self.vectors * size, self._rows, needs_output=True)
                for name, size in sizes.items()
            )
        )

    def _rows(self, use: LayerUse) -> Tensor:
        rows = output_scaling(use, self.degree)
        if self.vectors == 1:
            return rows
        parts = shares(self.vectors, self.pooling, self.ties).to(rows)
        return torch.kron(parts[None], rows)


def output_scaling(use: LayerUse, degree: int) -> Tensor:
    """Return k * sum_t D_no[t] * Y_n[t], (N*O, d_out): the Jacobian of gains z**k at z = 1."""
    y = use.y
    assert y is not None
    return degree * example_major([(d * y).sum(1) for d in use.d])


@dataclass(frozen=True)
class LoRA(Tuning):
    """Low-rank updates B A at their initialisation, B = 0 (Hu et al. 2022).

    J_B[no] = (alpha/r) D_no' X_n A'; J_A = 0. A is drawn as PEFT draws it (Kaiming uniform,
    a = sqrt 5) unless given.

    Attributes:
        rank: r.
        alpha: The scale is alpha/r.
        positions: The adapted layers; queries and values by convention, or the projections that
            hold query, key and value in one, as PEFT takes them.
        seed: Of A.
        a: Given A by module name, each (r, d_in).
    """

    rank: int = 8
    alpha: float = 8.0
    positions: str | tuple[str, ...] | None = None
    seed: int = 0
    a: dict[str, Tensor] | None = None
    name: str = "lora"

    def bind(self, model: nn.Module) -> Binding:
        """Bind to the layers at the positions."""
        generator = torch.Generator().manual_seed(self.seed)
        features = []
        for name, layer in _linears(model, self.positions or _attention(model, "query", "value")):
            d_in, d_out = _sizes(layer)
            a = (torch.rand(self.rank, d_in, generator=generator) * 2 - 1) * d_in**-0.5
            if self.a is not None:
                a = _given(self.a, name, "A", (self.rank, d_in))
            features.append(Feature(name, d_out * self.rank, self._rows(a)))
        return Binding(features=tuple(features))

    def _rows(self, a: Tensor) -> Callable[[LayerUse], Tensor]:
        def rows(use: LayerUse) -> Tensor:
            block = _linear_block(use)
            low = block.x @ a.to(block.x).T
            return self.alpha / self.rank * LinearBlock(low, use.d).dense()

        return rows


@dataclass(frozen=True)
class AdaLoRA(Tuning):
    """Updates P Lambda Q at their initialisation, Lambda = 0 (Zhang et al. 2023).

    J_Lambda,i = scale * p_i' (D_no' X_n) q_i, scale = alpha / (r + 1e-5) as PEFT has it; the rest
    is zero.

    Attributes:
        rank: r, the initial rank.
        alpha: As in LoRA.
        positions: The adapted layers, as in LoRA.
        seed: Of P and Q, normal with standard deviation 0.02 as PEFT draws them.
        factors: Given (P (d_out, r), Q (r, d_in)) by module name.
    """

    rank: int = 12
    alpha: float = 8.0
    positions: str | tuple[str, ...] | None = None
    seed: int = 0
    factors: dict[str, tuple[Tensor, Tensor]] | None = None
    name: str = "adalora"

    def bind(self, model: nn.Module) -> Binding:
        """Bind to the layers at the positions."""
        generator = torch.Generator().manual_seed(self.seed)
        features = []
        for name, layer in _linears(model, self.positions or _attention(model, "query", "value")):
            d_in, d_out = _sizes(layer)
            p = 0.02 * torch.randn(d_out, self.rank, generator=generator)
            q = 0.02 * torch.randn(self.rank, d_in, generator=generator)
            if self.factors is not None:
                left, right = ({n: pair[i] for n, pair in self.factors.items()} for i in (0, 1))
                p = _given(left, name, "P", (d_out, self.rank))
                q = _given(right, name, "Q", (self.rank, d_in))
            features.append(Feature(name, self.rank, self._rows(p, q)))
        return Binding(features=tuple(features))

    def _rows(self, p: Tensor, q: Tensor) -> Callable[[LayerUse], Tensor]:
        def rows(use: LayerUse) -> Tensor:
            x = _linear_block(use).x
            right = x @ q.to(x).T
            found = [((d @ p.to(d)) * right).sum(1) for d in use.d]
            return self.alpha / (self.rank + 1e-5) * example_major(found)

        return rows


@dataclass(frozen=True)
class IA3(Tuning):
    """Rescaled keys, values and feed-forward inputs (Liu et al. 2022), at scale 1.

    Outputs of ``outputs`` are scaled (degree 1); *inputs* of ``inputs`` too:
    sum_t (D_no W)[t] * X_n[t].

    Attributes:
        outputs: Keys and values by default, or the projections that hold query, key and value in
            one, as PEFT takes them.
        inputs: The MLPs' last projections by default.
    """

    outputs: str | tuple[str, ...] | None = None
    inputs: str | tuple[str, ...] | None = None
    name: str = "ia3"

    def bind(self, model: nn.Module) -> Binding:
        """Bind to the layers whose outputs and whose inputs are scaled."""
        chosen = _linears(model, self.outputs or _attention(model, "key", "value"))
        features = [
            Feature(name, _sizes(layer)[1], _output_scaling_once, needs_output=True)
            for name, layer in chosen
        ]
        if self.inputs is None:
            inner = [(n, m) for n, m in _linears(model, "all") if is_mlp_output(n)]
        else:
            inner = _linears(model, self.inputs)
        features += [Feature(name, _sizes(layer)[0], _input_scaling) for name, layer in inner]
        return Binding(features=tuple(features))


def _output_scaling_once(use: LayerUse) -> Tensor:
    return output_scaling(use, 1)


def _input_scaling(use: LayerUse) -> Tensor:
    x = _linear_block(use).x
    return example_major([((d @ use.weight) * x).sum(1) for d in use.d])


@dataclass(frozen=True)
class RowColumn(Tuning):
    """A few whole rows or columns of the layers' weights (RoCoFT, arXiv 2410.10075).

    Attributes:
        count: How many of each weight, from the first.
        axis: ``"rows"`` (output neurons) or ``"columns"`` (input features).
        positions: The layers; RoCoFT takes all of the encoder's.
    """

    count: int = 3
    axis: str = "rows"
    positions: str | tuple[str, ...] = "encoder"
    name: str = "rowcolumn"

    def __post_init__(self) -> None:
        if self.axis not in ("rows", "columns"):
            raise unknown("axis", self.axis, ("rows", "columns"))
        if self.count < 1:
            raise InputError(f"RowColumn trains at least one row or column, not {self.count}")

    def bind(self, model: nn.Module) -> Binding:
        """Bind to the layers at the positions."""
        features = []
        for name, layer in _linears(model, self.positions):
            d_in, d_out = _sizes(layer)
            other, size = (d_in, d_out) if self.axis == "rows" else (d_out, d_in)
            features.append(Feature(name, min(self.count, size) * other, self._rows))
        return Binding(features=tuple(features))

    def _rows(self, use: LayerUse) -> Tensor:
        block = _linear_block(use)
        if self.axis == "rows":
            d = [d[..., : self.count] for d in use.d]
            return LinearBlock(block.x, d).dense()
        return LinearBlock(block.x[..., : self.count], use.d).dense()


def _linears(model: nn.Module, positions: Positions) -> list[tuple[str, nn.Module]]:
    modules = dict(model.named_modules())
    chosen = [
        (name, modules[name])
        for name in select(model, positions)
        if not isinstance(modules[name], nn.Embedding)
    ]
    if not chosen:
        raise InputError(f"positions {positions!r} select no linear layer")
    return chosen


def _attention(model: nn.Module, *wanted: str) -> tuple[str, ...]:
    """The wanted projections; a fused one is taken for what it holds."""
    fused = "qkv" in module_roles(model).values()
    return ("query", "key", "value") if fused else wanted


def _sizes(layer: nn.Module) -> tuple[int, int]:
    """d_in, d_out of a Linear or Conv1D."""
    d_out = output_size(layer)
    return layer.get_parameter("weight").numel() // d_out, d_out


def _given(factors: dict[str, Tensor], module: str, what: str, shape: tuple[int, int]) -> Tensor:
    if module not in factors:
        raise InputError(f"{what} is given for {', '.join(factors)} but not for {module!r}")
    if factors[module].shape != shape:
        found = tuple(factors[module].shape)
        raise InputError(f"{what} of module {module!r} must be {shape} and is {found}")
    return factors[module].detach()


def _linear_block(use: LayerUse) -> LinearBlock:
    assert isinstance(use.block, LinearBlock)
    return use.block
