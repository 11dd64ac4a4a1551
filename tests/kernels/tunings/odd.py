"""Layers that are more than one product with a weight of their own, in a small model."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, weight_norm
from transformers.pytorch_utils import Conv1D

from tests.architectures import vectors


class Cosine(nn.Linear):
    """A linear layer of unit rows and unit inputs."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.normalize(x, dim=-1), F.normalize(self.weight, dim=-1), self.bias)


class Quantised(nn.Linear):
    """Weights rounded to a grid, gradients straight through."""

    def forward(self, x: Tensor) -> Tensor:
        grid = (self.weight * 8).round() / 8
        return F.linear(x, self.weight + (grid - self.weight).detach(), self.bias)


class Buffered(nn.Linear):
    """No weight parameter at all."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__(d_in, d_out)
        kept = self.weight.detach()
        del self.weight
        self.register_buffer("packed", kept.flatten())

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.packed.view(self.out_features, -1), self.bias)


class CosineConv1D(Conv1D):
    """The same with a weight (in, out)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.normalize(x, dim=-1))


class Net(nn.Module):
    """A layer of any kind between plain ones, on three tokens."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(2, 6), middle, nn.Linear(4, 3)

    def apply_middle(self, h: Tensor) -> Tensor:
        return self.middle(h)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.first(x.view(len(x), 3, 2)))
        return self.last(torch.tanh(self.apply_middle(h)).sum(1))


class ReadsWeightToo(Net):
    def apply_middle(self, h: Tensor) -> Tensor:
        return self.middle(h) + F.linear(h, self.middle.weight) * 0.3


class CallsForward(Net):
    def apply_middle(self, h: Tensor) -> Tensor:
        return self.middle.forward(h)


class Twice(Net):
    def apply_middle(self, h: Tensor) -> Tensor:
        return self.middle(h) * self.middle(h.flip(1))


class WritesOnIt(Net):
    def apply_middle(self, h: Tensor) -> Tensor:
        return self.middle(h).mul_(1.5)


def hooked(layer: nn.Module, before: bool = False) -> nn.Module:
    layer.register_forward_hook(lambda module, args, y: torch.sin(y))
    if before:
        layer.register_forward_pre_hook(lambda module, args: (args[0] * 1.7 + 0.2,))
    return layer


def hooked_by_forward(layer: nn.Module) -> nn.Module:
    """As libraries that move weights between devices do."""
    own = layer.forward
    layer.forward = lambda x: own(x).tanh()  # type: ignore[method-assign]
    return layer


ODD: dict[str, Callable[[], nn.Module]] = {
    "weight_norm": lambda: Net(parametrizations.weight_norm(nn.Linear(6, 4))),
    "spectral_norm": lambda: Net(parametrizations.spectral_norm(nn.Linear(6, 4))),
    "orthogonal": lambda: Net(parametrizations.orthogonal(nn.Linear(6, 4))),
    "old weight_norm": lambda: Net(weight_norm(nn.Linear(6, 4))),
    "cosine": lambda: Net(Cosine(6, 4)),
    "quantised": lambda: Net(Quantised(6, 4)),
    "Conv1D": lambda: Net(CosineConv1D(4, 6)),
    "hook": lambda: Net(hooked(nn.Linear(6, 4))),
    "hooks": lambda: Net(hooked(nn.Linear(6, 4), before=True)),
    "weight read twice": lambda: ReadsWeightToo(nn.Linear(6, 4)),
    "forward called": lambda: CallsForward(nn.Linear(6, 4)),
    "other forward": lambda: Net(hooked_by_forward(nn.Linear(6, 4))),
    "called twice": lambda: Twice(Cosine(6, 4)),
    "written on": lambda: WritesOnIt(hooked(nn.Linear(6, 4))),
}


def odd(kind: str) -> nn.Module:
    torch.manual_seed(0)
    model = ODD[kind]().double().eval()
    model(vectors(3))  # a weight that a hook computes has this dtype from then on
    return model
