"""The tunings by name: subsets of the model's own parameters here, added numbers in adapters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from ntk_propulsion.errors import InputError, unknown
from ntk_propulsion.kernels.engine.binding import Binding, count_trained
from ntk_propulsion.kernels.tunings.features import IA3, AdaLoRA, LoRA, Propulsion, RowColumn
from ntk_propulsion.kernels.tunings.tuning import Sum, Tuning, named_parameters
from ntk_propulsion.models.heads import head_parameters
from ntk_propulsion.models.roles import is_norm

__all__ = [
    "IA3",
    "TUNINGS",
    "AdaLoRA",
    "BitFit",
    "Full",
    "Head",
    "LayerNorm",
    "LoRA",
    "Parameters",
    "Propulsion",
    "RandomSubset",
    "RowColumn",
    "Sum",
    "Trainable",
    "Tuning",
    "resolve_tuning",
]


@dataclass(frozen=True)
class Full(Tuning):
    """Full fine-tuning: every parameter, whatever its requires_grad says."""

    name: str = "full"

    def bind(self, model: nn.Module) -> Binding:
        """Bind to all parameters."""
        return named_parameters(model, lambda name, p: p.is_floating_point(), self.name)


@dataclass(frozen=True)
class Trainable(Tuning):
    """The parameters that require grad: any wrapped or partly frozen model."""

    name: str = "trainable"

    def bind(self, model: nn.Module) -> Binding:
        """Bind to the parameters that require grad."""
        return named_parameters(model, lambda name, p: p.requires_grad, self.name)


@dataclass(frozen=True)
class Parameters(Tuning):
    """The parameters whose names match shell-style patterns."""

    patterns: tuple[str, ...]
    name: str = "parameters"

    def bind(self, model: nn.Module) -> Binding:
        """Bind to the parameters that match."""
        return named_parameters(
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
        return named_parameters(model, lambda name, p: "bias" in name.rpartition(".")[2], self.name)


@dataclass(frozen=True)
class LayerNorm(Tuning):
    """Scales and shifts of the normalisation layers (any module whose class name says Norm)."""

    name: str = "layernorm"

    def bind(self, model: nn.Module) -> Binding:
        """Bind to the normalisations' own parameters."""
        norms = {n for n, m in model.named_modules() if is_norm(m)}
        return named_parameters(model, lambda name, p: name.rpartition(".")[0] in norms, self.name)


@dataclass(frozen=True)
class Head(Tuning):
    """The head alone: parameters outside the pretrained base model.

    Without a ``base_model_prefix`` (not a transformers model), the last linear layer.
    """

    name: str = "head"

    def bind(self, model: nn.Module) -> Binding:
        """Bind to the head's parameters."""
        head = set(head_parameters(model))
        return named_parameters(model, lambda name, p: name in head, self.name)


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

    Examples:
        >>> resolve_tuning("propulsion+bitfit", degree=5).tunings[0].degree
        5

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
