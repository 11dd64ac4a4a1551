"""What a tuning trains, as a Jacobian: parameters of the model, and features of its layers.

A tuning is bound to a model and then names two things: parameters whose blocks it trains as they
are (BitFit's biases), and *features*, the Jacobian of trained numbers that the model does not
have yet (Propulsion's z, LoRA's B), each a contraction of a layer's input X, output Y and
cotangent D. The kernel of a tuning is the sum over both. All tunings stand at their
initialisation, where the model is unchanged; a model that is really wrapped is done by
:class:`Propulsion` (at its trained z) or :class:`Trainable`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from ntk_propulsion.errors import InputError, unknown
from ntk_propulsion.kernels.jacobian import EmbeddingBlock, LinearBlock, example_major
from ntk_propulsion.propulsion.layers import check_degree, output_size
from ntk_propulsion.propulsion.wrap import scalings
from ntk_propulsion.roles import head_parameters, is_mlp_output, module_roles, select

Positions = str | Iterable[str]


@dataclass(frozen=True)
class LayerUse:
    """One call of a Linear, Conv1D or Embedding, as captured.

    Attributes:
        block: The weight's block: X and D (or token ids and D).
        y: The output, (N, T, d_out), if the feature needs it.
        weight: (d_out, d_in); an embedding's is (vocabulary, d_out).
    """

    block: LinearBlock | EmbeddingBlock
    y: Tensor | None
    weight: Tensor

    @property
    def d(self) -> list[Tensor]:
        """The cotangents of the output."""
        return self.block.d


@dataclass(frozen=True)
class Feature:
    """The Jacobian of numbers that train at one layer.

    Attributes:
        module: The layer's name.
        size: How many numbers train.
        rows: From one call of the layer to (N*O, size); the calls of a layer add.
        needs_output: Whether ``LayerUse.y`` is needed.
    """

    module: str
    size: int
    rows: Callable[[LayerUse], Tensor]
    needs_output: bool = False


@dataclass(frozen=True)
class Binding:
    """A tuning on a model.

    Attributes:
        parameters: Names of the model's parameters that train whole.
        features: Trained numbers that are not parameters of the model.
        entries: Flat positions that train, by parameter of which only a part does.
    """

    parameters: tuple[str, ...] = ()
    features: tuple[Feature, ...] = ()
    entries: dict[str, Tensor] = field(default_factory=dict)


class Tuning:
    """Base of all tunings: a name, and what trains on a given model.

    ``a + b`` trains both; its kernel is the sum.
    """

    name: str

    def bind(self, model: nn.Module) -> Binding:
        """Return what trains on this model.

        Raises:
            InputError: Nothing does.
        """
        raise NotImplementedError

    def __add__(self, other: Tuning) -> Tuning:
        return Sum((self, other), f"{self.name}+{other.name}")


def _named(model: nn.Module, keep: Callable[[str, nn.Parameter], bool], what: str) -> Binding:
    names = tuple(name for name, p in model.named_parameters() if keep(name, p))
    if not names:
        raise InputError(f"{type(model).__name__} has no parameters in the reach of {what}")
    return Binding(names)


@dataclass(frozen=True)
class Full(Tuning):
    """Full fine-tuning: every parameter, whatever its requires_grad says."""

    name: str = "full"

    def bind(self, model: nn.Module) -> Binding:
        """Bind to all parameters."""
        return _named(model, lambda name, p: p.is_floating_point(), self.name)


@dataclass(frozen=True)
class Trainable(Tuning):
    """The parameters that require grad: any wrapped or partly frozen model."""

    name: str = "trainable"

    def bind(self, model: nn.Module) -> Binding:
        """Bind to the parameters that require grad."""
        return _named(model, lambda name, p: p.requires_grad, self.name)


@dataclass(frozen=True)
class Parameters(Tuning):
    """The parameters whose names match shell-style patterns."""

    patterns: tuple[str, ...]
    name: str = "parameters"

    def bind(self, model: nn.Module) -> Binding:
        """Bind to the parameters that match."""
        return _named(
            model,
            lambda name, p: any(fnmatchcase(name, pattern) for pattern in self.patterns),
            f"{self.name} ({', '.join(self.patterns)})",
        )


@dataclass(frozen=True)
class BitFit(Tuning):
    """All biases (Ben Zaken et al. 2022): parameters whose own name says bias."""

    name: str = "bitfit"

    def bind(self, model: nn.Module) -> Binding:
        """Bind to the biases."""
        return _named(model, lambda name, p: "bias" in name.rpartition(".")[2], self.name)


@dataclass(frozen=True)
class LayerNorm(Tuning):
    """Scales and shifts of the normalisation layers (any module whose class name says Norm)."""

    name: str = "layernorm"

    def bind(self, model: nn.Module) -> Binding:
        """Bind to the normalisations' own parameters."""
        norms = {n for n, m in model.named_modules() if "norm" in type(m).__name__.lower()}
        return _named(model, lambda name, p: name.rpartition(".")[0] in norms, self.name)


@dataclass(frozen=True)
class Head(Tuning):
    """The head alone: parameters outside the pretrained base model.

    Without a ``base_model_prefix`` (not a transformers model), the last linear layer.
    """

    name: str = "head"

    def bind(self, model: nn.Module) -> Binding:
        """Bind to the head's parameters."""
        head = set(head_parameters(model))
        return _named(model, lambda name, p: name in head, self.name)


@dataclass(frozen=True)
class Propulsion(Tuning):
    """Scaling z**degree of the layers' outputs, at z = 1 (arXiv 2409.10927).

    J_z[no] = k z**(k-1) sum_t D_no[t] * Y_n[t] with Y the output before the scaling and D its
    cotangent after. On a model that is wrapped already the kernel is that of its scaling vectors
    as they stand, and ``degree`` and ``positions`` are the model's own.
    """

    degree: int = 15
    positions: str | tuple[str, ...] = "all"
    name: str = "propulsion"

    def __post_init__(self) -> None:
        check_degree(self.degree)

    def bind(self, model: nn.Module) -> Binding:
        """Bind to the layers at the positions, or to the scaling vectors that exist."""
        wrapped = {id(scaling.z) for scaling in scalings(model).values()}
        if wrapped:
            return _named(model, lambda name, p: id(p) in wrapped, self.name)
        modules = dict(model.named_modules())
        return Binding(
            features=tuple(
                Feature(name, output_size(modules[name]), self._rows, needs_output=True)
                for name in select(model, self.positions)
            )
        )

    def _rows(self, use: LayerUse) -> Tensor:
        return output_scaling(use, self.degree)


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


@dataclass(frozen=True)
class RandomSubset(Tuning):
    """Entries of the model's parameters drawn uniformly: the control of equal size.

    Attributes:
        size: How many entries, or the tuning whose number of trained numbers to match.
        seed: Of the draw.
    """

    size: int | Tuning = field(default_factory=Propulsion)
    seed: int = 0
    name: str = "random_subset"

    def bind(self, model: nn.Module) -> Binding:
        """Bind to the drawn entries."""
        named = {n: p for n, p in model.named_parameters() if p.is_floating_point()}
        total = sum(p.numel() for p in named.values())
        size = (
            self.size if isinstance(self.size, int) else count_trained(self.size.bind(model), model)
        )
        if not 1 <= size <= total:
            raise InputError(f"RandomSubset of {size} entries: the model has {total}")
        generator = torch.Generator().manual_seed(self.seed)
        drawn = _sample(total, size, generator)
        entries, start = {}, 0
        for name, p in named.items():
            inside = drawn[(drawn >= start) & (drawn < start + p.numel())] - start
            start += p.numel()
            if len(inside):
                entries[name] = inside.to(p.device)
        return Binding(entries=entries)


def _sample(total: int, size: int, generator: torch.Generator) -> Tensor:
    """``size`` distinct numbers below ``total``, sorted; memory of the sample, not of the total."""
    if size > total // 4:
        return torch.randperm(total, generator=generator)[:size].sort().values
    drawn = torch.empty(0, dtype=torch.long)
    while len(drawn) < size:
        more = torch.randint(total, (2 * (size - len(drawn)) + 16,), generator=generator)
        drawn = torch.cat([drawn, more]).unique()
    keep = torch.randperm(len(drawn), generator=generator)[:size]
    return drawn[keep].sort().values


@dataclass(frozen=True)
class Sum(Tuning):
    """Several tunings at once; kernels add. A parameter that two of them train counts once."""

    tunings: tuple[Tuning, ...]
    name: str

    def bind(self, model: nn.Module) -> Binding:
        """Bind each."""
        bound = [tuning.bind(model) for tuning in self.tunings]
        whole = dict.fromkeys(name for binding in bound for name in binding.parameters)
        entries: dict[str, Tensor] = {}
        for binding in bound:
            for name, index in binding.entries.items():
                if name not in whole:
                    both = torch.cat([entries[name], index]) if name in entries else index
                    entries[name] = both.unique()
        features = tuple(feature for binding in bound for feature in binding.features)
        return Binding(tuple(whole), features, entries)


def count_trained(binding: Binding, model: nn.Module) -> int:
    """Return how many numbers a bound tuning trains."""
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    return (
        sum(sizes[name] for name in binding.parameters)
        + sum(feature.size for feature in binding.features)
        + sum(len(index) for index in binding.entries.values())
    )


TUNINGS: dict[str, Callable[[], Tuning]] = {
    "full": Full,
    "propulsion": Propulsion,
    "lora": LoRA,
    "adalora": AdaLoRA,
    "ia3": IA3,
    "bitfit": BitFit,
    "layernorm": LayerNorm,
    "rowcolumn": RowColumn,
    "head": Head,
    "random_subset": RandomSubset,
    "trainable": Trainable,
}


def resolve_tuning(tuning: str | Tuning, degree: int | None = None) -> Tuning:
    """Return a tuning by its name, with its defaults; ``a+b`` trains both.

    Args:
        tuning: A name of ``TUNINGS``, a sum of names, or a tuning.
        degree: Of Propulsion, and of what is sized like it.

    Raises:
        InputError: Unknown name; near matches are named.
    """
    if isinstance(tuning, Tuning):
        return tuning
    if "+" in tuning:
        parts = tuple(resolve_tuning(part, degree) for part in tuning.split("+"))
        return Sum(parts, tuning)
    if tuning not in TUNINGS:
        raise unknown("tuning", tuning, TUNINGS)
    found = TUNINGS[tuning]()
    if degree is not None and isinstance(found, Propulsion):
        return replace(found, degree=degree)
    return found


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
