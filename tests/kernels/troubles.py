"""Troubles: small models and batches that engines of kernels get wrong, each with what must come.

Kinds, a letter each: A mixes examples or is random; B is seen by no capture; C hardly counts beside
the rest; D is another model once copied; E is complex; F is not finite; G brings what is no tensor;
H is wrapped; M changes as it runs; N stops the general rule; O has another layout for each example;
P makes libraries fail. The troubles themselves lie in `troubles_*.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ntk_propulsion.kernels.tunings import Parameters
from tests.kernels.rows import rows_alone, rows_together

D = torch.float64
Given = tuple[nn.Module, Any]
"""A model, and a batch of N examples."""


@dataclass(frozen=True)
class Trouble:
    """A model and a batch, and what must come of them.

    Attributes:
        name: Of the trouble.
        kind: Its letter.
        build: Makes model and batch; the same numbers at each call.
        expect: "kernel", "refused", or "either" of the two: never another error or number.
        words: What a refusal says, a regular expression.
        outputs: As `empirical_ntk` takes them.
        tuning: As `empirical_ntk` takes it.
        keywords: The others of `empirical_ntk`.
        tolerance: Relative error of the kernel and of each module's part.
        truth: Makes the model and batch that autograd differentiates, where it is another.
        together: Autograd runs all examples in one call: what an author thought of a batch.
        deadly: Whether a fault may end the process: it is tried in one of its own.
        head: Names of the parameters that train, where the tuning's name does not say.
    """

    name: str
    kind: str
    build: Callable[[], Given]
    expect: str
    words: str = ""
    outputs: Any = "logits"
    tuning: Any = "full"
    keywords: Mapping[str, Any] = field(default_factory=dict)
    tolerance: float = 1e-6
    truth: Callable[[], Given] | None = None
    together: bool = False
    deadly: bool = False
    head: tuple[str, ...] = ()

    def trained(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """Return the parameters that the tuning trains, by name."""
        return {name: p for name, p in model.named_parameters() if self._trains(name, p)}

    def _trains(self, name: str, p: nn.Parameter) -> bool:
        if isinstance(self.tuning, Parameters):
            return any(fnmatchcase(name, pattern) for pattern in self.tuning.patterns)
        if self.head:
            return name in self.head
        if self.tuning == "trainable":
            return p.requires_grad
        return self.tuning == "full" or "bias" in name.rpartition(".")[2]

    def rows(self) -> dict[str, Tensor]:
        """Return what autograd says: each parameter's rows, in float64 where they can be."""
        model, batch = (self.truth or self.build)()
        named = self.trained(model)
        differentiate = rows_together if self.together else rows_alone
        found = differentiate(model, batch, self.outputs, list(named.values()))
        return {name: rows.double() for name, rows in zip(named, found, strict=True)}


TROUBLES: list[Trouble] = []


def trouble(
    kind: str, expect: str, words: str = "", **keywords: Any
) -> Callable[[Callable[[], Given]], Callable[[], Given]]:
    """Make a function that builds a model and a batch a trouble of its name."""

    def register(make: Callable[[], Given]) -> Callable[[], Given]:
        def build() -> Given:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                return make()

        name = keywords.pop("name", make.__name__)
        TROUBLES.append(Trouble(name, kind, build, expect, words, **keywords))
        return make

    return register


# -- what many of them are made of


class Net(nn.Module):
    """``b(middle(self, tanh(a(x))))``, 4 inputs and 2 outputs.

    Args:
        middle: Takes the model and its hidden state (n, 5) or (n, t, 5), of which the head takes
            the mean over t.
        width: Of what the middle gives.
        parts: Tensors, which become parameters, and modules.
    """

    def __init__(
        self,
        middle: Callable[[Any, Tensor], Tensor] = lambda m, h: h,
        *,
        width: int = 5,
        zero_head: bool = False,
        **parts: Tensor | nn.Module,
    ) -> None:
        super().__init__()
        self.middle = middle
        self.a, self.b = nn.Linear(4, 5), nn.Linear(width, 2)
        if zero_head:
            nn.init.zeros_(self.b.weight)
        for name, part in parts.items():
            setattr(self, name, nn.Parameter(part) if isinstance(part, Tensor) else part)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        h = self.middle(self, torch.tanh(self.a(x)))
        return self.b(h.mean(1) if h.dim() == 3 else h)


class Round(torch.autograd.Function):
    """Rounds; the gradient goes straight through."""

    @staticmethod
    def forward(ctx: Any, w: Tensor) -> Tensor:
        return torch.round(w * 8) / 8

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> Tensor:
        return g[0]


class RoundedLinear(nn.Linear):
    """A linear layer of rounded numbers, as quantisation-aware training has it."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, Round.apply(self.weight), Round.apply(self.bias))


def vectors(n: int = 6) -> Tensor:
    """(n, 4)."""
    return torch.randn(n, 4, dtype=D)


def sequences(n: int = 6, t: int = 3) -> Tensor:
    """(n, t, 4)."""
    return torch.randn(n, t, 4, dtype=D)


def ids(n: int = 6, t: int = 3) -> Tensor:
    """Numbers of 10 tokens, (n, t)."""
    return torch.randint(0, 10, (n, t))


def frozen(model: nn.Module, *but: str) -> nn.Module:
    """Freeze all parameters but those named."""
    for name, p in model.named_parameters():
        p.requires_grad_(name in but)
    return model
