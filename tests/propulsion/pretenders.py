"""Layers of a linear layer's class that are none, and models that read a weight twice."""

import types
import warnings

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from transformers.pytorch_utils import Conv1D

from ntk_propulsion.propulsion import PropulsionConfig, scalings, wrap


class Quantised(nn.Linear):
    """Rounds its weight to eight bits, with one scale for all of it."""

    def forward(self, x):
        step = self.weight.abs().max() / 127
        return F.linear(x, (self.weight / step).round() * step, self.bias)


class Cosine(nn.Linear):
    def forward(self, x):
        return F.linear(F.normalize(x, dim=-1), F.normalize(self.weight, dim=-1), self.bias)


class Standardised(nn.Linear):
    def forward(self, x):
        weight = self.weight - self.weight.mean(1, keepdim=True)
        return F.linear(x, weight / weight.std(1, keepdim=True), self.bias)


class Ternary(nn.Linear):
    """A weight of -1, 0 and 1 times its mean size, with a straight-through gradient."""

    def forward(self, x):
        size = self.weight.abs().mean()
        rounded = (self.weight / size).round().clamp(-1, 1) * size
        return F.linear(x, self.weight + (rounded - self.weight).detach(), self.bias)


class Activated(nn.Linear):
    def forward(self, x):
        return F.gelu(super().forward(x))


class Residual(nn.Linear):
    def forward(self, x):
        return x + super().forward(x)


class Factored(nn.Linear):
    """A product with a second parameter beside the weight, added."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.low = nn.Parameter(torch.randn(self.weight.shape))

    def forward(self, x):
        return super().forward(x) + F.linear(x, self.low)


class Scheduled(nn.Linear):
    """Quantises only while it trains."""

    def forward(self, x):
        return Quantised.forward(self, x) if self.training else super().forward(x)


class UnitRows(nn.Embedding):
    def forward(self, ids):
        return F.normalize(super().forward(ids), dim=-1)


class Placed(nn.Embedding):
    """Adds what no gain in the table reaches."""

    def forward(self, ids):
        return super().forward(ids) + torch.arange(self.embedding_dim).to(self.weight)


class RoundedConv1D(Conv1D):
    def forward(self, x):
        return super().forward(x).mul(8).round().div(8)


def hooked(hook):
    layer = nn.Linear(6, 6)
    layer.register_forward_hook(hook)
    return layer


def patched():
    layer = nn.Linear(6, 6)
    plain = layer.forward
    layer.forward = types.MethodType(lambda self, x: torch.tanh(plain(x)), layer)
    return layer


def silenced(change):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return change(nn.Linear(6, 6))


def qat():
    """torch's own layer for quantisation-aware training, its scales fixed on one batch."""
    config = torch.ao.quantization.QConfig(
        activation=torch.ao.quantization.default_fake_quant,
        weight=torch.ao.quantization.default_fake_quant,
    )
    layer = torch.ao.nn.qat.Linear(6, 6, qconfig=config)
    layer(torch.randn(4, 6))
    return layer.train()


def half_parametrised():
    layer = nn.Linear(6, 6)
    parametrize.register_parametrization(layer, "bias", nn.Tanh())
    return layer


PRETENDERS = {
    "quantised": lambda: Quantised(6, 6),
    "cosine": lambda: Cosine(6, 6),
    "standardised": lambda: Standardised(6, 6),
    "ternary": lambda: Ternary(6, 6),
    "activated": lambda: Activated(6, 6),
    "residual": lambda: Residual(6, 6),
    "factored": lambda: Factored(6, 6),
    "scheduled": lambda: Scheduled(6, 6).train(),
    "hook that clamps": lambda: hooked(lambda m, x, y: y.clamp(-9, 9)),
    "hook that rounds": lambda: hooked(lambda m, x, y: (4 * y).round() / 4),
    "hook that adds": lambda: hooked(lambda m, x, y: y + x[0]),
    "hook that normalises": lambda: hooked(lambda m, x, y: F.layer_norm(y, y.shape[-1:])),
    "patched forward": patched,
    "weight_norm": lambda: parametrizations.weight_norm(nn.Linear(6, 6)),
    "spectral_norm": lambda: parametrizations.spectral_norm(nn.Linear(6, 6)),
    "orthogonal": lambda: parametrizations.orthogonal(nn.Linear(6, 6)),
    "half parametrised": half_parametrised,
    "old weight_norm": lambda: silenced(nn.utils.weight_norm),
    "old spectral_norm": lambda: silenced(nn.utils.spectral_norm).eval(),
    "pruned": lambda: prune.random_unstructured(nn.Linear(6, 6), "weight", 0.5),
    "conv1d": lambda: RoundedConv1D(6, 6),
    "unit rows": lambda: UnitRows(9, 6),
    "placed": lambda: Placed(9, 6),
    "max_norm": lambda: nn.Embedding(9, 6, max_norm=1.0),
}
"""Layers with 6 inputs and 6 outputs whose gains cannot go into their weights."""


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class QuantisedInput(nn.Linear):
    def forward(self, x):
        step = x.abs().max() / 127
        return super().forward((x / step).round() * step)


class Positions(nn.Embedding):
    """Makes places of a mask, two further on, as OPT does."""

    def __init__(self):
        super().__init__(12, 6)

    def forward(self, mask):
        return super().forward(mask.cumsum(1) + 2)


HONEST = {
    "linear": lambda: nn.Linear(6, 6),
    "no bias": lambda: nn.Linear(6, 6, bias=False),
    "conv1d": lambda: Conv1D(6, 6),
    "embedding": lambda: nn.Embedding(9, 6, padding_idx=0),
    "doubled": lambda: Doubled(6, 6),
    "quantised input": lambda: QuantisedInput(6, 6),
    "hook that doubles": lambda: hooked(lambda m, x, y: 2 * y),
    "hook that watches": lambda: hooked(lambda m, x, y: None),
    "positions": Positions,
    "zero weight": lambda: nn.init.zeros_((layer := nn.Linear(6, 6)).weight) is None or layer,
}
"""Layers whose gains can go into their weights."""


class Tied(nn.Module):
    """A language model: token numbers in, logits out; subclasses tie the decoder."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(9, 6)
        self.middle = nn.Linear(6, 6)
        self.tie()

    def tie(self):
        pass

    def decode(self, hidden):
        return F.linear(hidden, self.table.weight)

    def forward(self, ids):
        return self.decode(torch.tanh(self.middle(self.table(ids))))


class ReadThrough(Tied):
    """The decoder reads the table's weight from the layer."""


class ReadTransposed(Tied):
    def decode(self, hidden):
        return hidden @ self.table.weight.t()


class ReadInProduct(Tied):
    def decode(self, hidden):
        return torch.einsum("ntd,vd->ntv", hidden, self.table.weight)


class KeptByParent(Tied):
    def tie(self):
        self.kept = self.table.weight

    def decode(self, hidden):
        return F.linear(hidden, self.kept)


class TiedLayer(Tied):
    def tie(self):
        self.decoder = nn.Linear(6, 9, bias=False)
        self.decoder.weight = self.table.weight

    def decode(self, hidden):
        return self.decoder(hidden)


class TiedData(TiedLayer):
    """One memory, two parameters."""

    def tie(self):
        self.decoder = nn.Linear(6, 9, bias=False)
        self.decoder.weight.data = self.table.weight.data


class Multiplier(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.matrix = weight

    def forward(self, x):
        return x @ self.matrix.T


class TiedOther(TiedLayer):
    """The decoder is no layer that is ever scaled."""

    def tie(self):
        self.decoder = Multiplier(self.table.weight)


class TiedBuffer(TiedLayer):
    """The decoder keeps a view of the table as a buffer."""

    def tie(self):
        self.register_buffer("view", self.table.weight.detach().t(), persistent=False)

    def decode(self, hidden):
        return hidden @ self.view


READ = (ReadThrough, ReadTransposed, ReadInProduct)
"""Nothing but a run shows that their table is read twice."""
TIED = (KeptByParent, TiedLayer, TiedData, TiedOther, TiedBuffer)


def moved(model, *positions, degree=3, spread=0.3):
    """Wrap a model and move its gains away from one, some below zero."""
    wrap(model, PropulsionConfig(degree, positions or ("all",)))
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for scaling in scalings(model).values():
            noise = torch.randn(scaling.z.shape, generator=generator)
            scaling.z.copy_(1 + spread * noise)
            scaling.z[0] *= -1
    return model
