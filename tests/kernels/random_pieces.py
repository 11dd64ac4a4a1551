"""Pieces of random models: each writes lines of a module's source that turn h into another h.

A state h has shape (n, t, d). Each piece treats an example as it would alone, except those of
`MIXING` and `RANDOM`. Sources are text so that a model that fails can be read and run again.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

ACTIVATIONS = (
    "torch.tanh",
    "F.gelu",
    "F.silu",
    "torch.relu",
    "F.softplus",
    "torch.sin",
    "F.elu",
    "torch.sigmoid",
)


@dataclass
class Writer:
    """Writes one class.

    Attributes:
        rng: What all choices come from.
        t: Tokens of the state.
        d: Width of the state.
        name: Of the class.
        classes: Sources of the classes that are done; shared with writers of submodules.
        init: Lines of ``__init__``.
        forward: Lines of ``forward``.
        linears: Linear layers of this class that another place may use again: name, in, out.
        marks: What the pieces said of the model: "mixing", "random", "closure".
        depth: Of this class in the model.
    """

    rng: random.Random
    t: int
    d: int
    name: str = "Net"
    classes: list[str] = field(default_factory=list)
    init: list[str] = field(default_factory=list)
    forward: list[str] = field(default_factory=list)
    linears: list[tuple[str, int, int]] = field(default_factory=list)
    marks: set[str] = field(default_factory=set)
    depth: int = 0
    count: int = 0

    def fresh(self, prefix: str) -> str:
        """Return a name that is new in this class."""
        self.count += 1
        return f"{prefix}{self.count}"

    def module(self, expression: str) -> str:
        """Make a submodule; return how ``forward`` calls it."""
        name = f"self.{self.fresh('m')}"
        self.init.append(f"{name} = {expression}")
        return name

    def linear(self, out: int) -> str:
        """Make a linear layer from the state's width."""
        name = self.module(f"nn.Linear({self.d}, {out}, bias={self.coin(0.7)})")
        self.linears.append((name, self.d, out))
        return name

    def parameter(self, *shape: int) -> str:
        """Make a parameter of the module itself."""
        name = f"self.{self.fresh('p')}"
        self.init.append(f"{name} = nn.Parameter(torch.randn({list(shape)}) / 2)")
        return name

    def var(self, expression: str) -> str:
        """Assign to a new variable of ``forward``."""
        name = self.fresh("h")
        self.line(f"{name} = {expression}")
        return name

    def line(self, *lines: str) -> None:
        """Add lines to ``forward``."""
        self.forward += lines

    def coin(self, chance: float = 0.5) -> bool:
        """Return True with a chance."""
        return self.rng.random() < chance

    def size(self) -> int:
        """Return a width."""
        return self.rng.randint(2, 4)

    def pick(self, *choices: str) -> str:
        """Return one of some texts."""
        return self.rng.choice(choices)

    def divisor(self) -> int:
        """Return a number of heads or groups."""
        return self.rng.choice([k for k in range(1, self.d + 1) if self.d % k == 0])

    def child(self) -> Writer:
        """Return a writer of a submodule of the same state."""
        name = f"Block{len(self.classes) + 1}"
        self.classes.append("")  # its place: inner classes of it come behind
        return Writer(
            self.rng, self.t, self.d, name, self.classes, marks=self.marks, depth=self.depth + 1
        )

    def source(self, signature: str, returned: str) -> str:
        """Return the class as text."""
        lines = [f"class {self.name}(nn.Module):", "    def __init__(self):"]
        lines += [f"        {line}" for line in ("super().__init__()", *self.init)]
        lines += [f"    def forward(self, {signature}):"]
        lines += [f"        {line}" for line in (*self.forward, f"return {returned}")]
        return "\n".join(lines)


Piece = Callable[[Writer, str], str]
LAYERS: list[Piece] = []


def layer(piece: Piece) -> Piece:
    """Make a piece known."""
    LAYERS.append(piece)
    return piece


@layer
def linear(w: Writer, h: str) -> str:
    out = w.size()
    name = w.linear(out)
    w.d = out
    return w.var(f"{w.pick(*ACTIVATIONS)}({name}({h}))")


@layer
def activation(w: Writer, h: str) -> str:
    if w.coin(0.2):
        return w.var(f"{w.module('nn.PReLU()')}({h})")
    return w.var(f"{w.pick(*ACTIVATIONS)}({h})")


@layer
def sequential(w: Writer, h: str) -> str:
    a, b, d = w.size(), w.size(), w.d
    w.d = b
    parts = f"nn.Linear({d}, {a}), nn.Tanh(), nn.Dropout(0.5), nn.Linear({a}, {b})"
    return w.var(f"{w.module(f'nn.Sequential({parts})')}({h})")


@layer
def norm(w: Writer, h: str) -> str:
    d = w.d
    if w.coin(0.4):
        kind = w.pick(f"nn.LayerNorm({d})", f"nn.LayerNorm([{w.t}, {d}])", f"nn.RMSNorm({d})")
        return w.var(f"{w.module(kind)}({h})")
    kinds = [f"nn.GroupNorm(1, {d})", f"nn.BatchNorm1d({d})"]
    if w.t > 1:
        kinds += [f"nn.InstanceNorm1d({d}, affine=True)", f"nn.GroupNorm({w.divisor()}, {d})"]
    return w.var(f"{w.module(w.pick(*kinds))}({h}.transpose(1, 2)).transpose(1, 2)")


@layer
def convolution(w: Writer, h: str) -> str:
    out, groups = w.size(), 1
    if w.coin(0.3):
        out, groups = w.d, w.d
    k = w.rng.choice((1, 3))
    kind = w.pick("Conv1d", "Conv1d", "ConvTranspose1d")
    name = w.module(f"nn.{kind}({w.d}, {out}, {k}, padding={k // 2}, groups={groups})")
    w.d = out
    return w.var(f"{name}({h}.transpose(1, 2)).transpose(1, 2)")


@layer
def convolution2d(w: Writer, h: str) -> str:
    c, mode = w.size(), w.pick("zeros", "replicate", "circular")
    a = w.module(f"nn.Conv2d(1, {c}, 3, padding=1, padding_mode={mode!r})")
    b = w.module(f"nn.Conv2d({c}, 1, 1, bias={w.coin()})")
    return w.var(f"{b}({w.pick(*ACTIVATIONS)}({a}({h}.unsqueeze(1)))).squeeze(1)")


@layer
def recurrent(w: Writer, h: str) -> str:
    kind, out, both = w.pick("RNN", "GRU", "LSTM"), w.size(), w.coin(0.3)
    first = w.coin(0.7)
    name = w.module(
        f"nn.{kind}({w.d}, {out}, num_layers={w.rng.choice((1, 1, 2))}, bidirectional={both}, "
        f"batch_first={first}, bias={w.coin(0.8)})"
    )
    w.d = out * (1 + both)
    if first:
        return w.var(f"{name}({h})[0]")
    return w.var(f"{name}({h}.transpose(0, 1))[0].transpose(0, 1)")


@layer
def cell(w: Writer, h: str) -> str:
    out, kind = w.size(), w.pick("GRUCell", "RNNCell")
    name, state, seen = w.module(f"nn.{kind}({w.d}, {out})"), w.fresh("s"), w.fresh("seen")
    w.line(f"{state}, {seen} = None, []")
    w.line(f"for e in {h}.unbind(1):", f"    {state} = {name}(e, {state}); {seen}.append({state})")
    w.d = out
    return w.var(f"torch.stack({seen}, 1)")


@layer
def attention(w: Writer, h: str) -> str:
    name = w.module(f"nn.MultiheadAttention({w.d}, {w.divisor()}, batch_first=True)")
    weights = f"need_weights={w.coin()}"
    if w.coin(0.3):
        mask = w.var(f"torch.ones({w.t}, {w.t}, dtype=torch.bool).triu(1)")
        weights += f", attn_mask={mask}"
    return w.var(f"{h} + {name}({h}, {h}, {h}, {weights})[0]")


@layer
def encoder(w: Writer, h: str) -> str:
    heads, first = w.divisor(), w.coin()
    kind = w.pick("nn.TransformerEncoderLayer", "nn.TransformerDecoderLayer")
    name = w.module(f"{kind}({w.d}, {heads}, 3, batch_first=True, norm_first={first})")
    return w.var(f"{name}({h}, {h})" if "Decoder" in kind else f"{name}({h})")


@layer
def own_attention(w: Writer, h: str) -> str:
    q, k, v = (w.var(f"{w.linear(w.d)}({h})") for _ in range(3))
    if w.coin():
        return w.var(f"{h} + F.scaled_dot_product_attention({q}, {k}, {v}, is_causal={w.coin()})")
    scores = w.var(f"torch.einsum('nid,njd->nij', {q}, {k}).softmax(-1)")
    return w.var(f"{h} + torch.einsum('nij,njd->nid', {scores}, {v})")


@layer
def gain(w: Writer, h: str) -> str:
    p = w.parameter(*w.rng.choice([(), (1,), (w.d,), (w.t, w.d), (1, 1, w.d), (w.t, 1)]))
    return w.var(
        w.pick(
            f"{h} * {p}",
            f"{h} + {p}",
            f"{h} * (1 + {p}.tanh())",
            f"{h} * {p}.exp() + {p}",
            f"torch.addcmul({h}, {h}, {p}, value=0.5)",
            f"{p} - {h}",
            f"torch.lerp({h}, torch.tanh({h}), {p}.sigmoid())",
        )
    )


@layer
def product(w: Writer, h: str) -> str:
    d, out = w.d, w.size()
    a, flat = w.parameter(d, out), f"{h}.reshape(-1, {d})"
    w.d = out
    return w.var(
        w.pick(
            f"{h} @ {a}",
            f"torch.einsum('ntd,de->nte', {h}, {a})",
            f"torch.addmm({a}.sum(0), {flat}, {a}).view(-1, {w.t}, {out})",
            f"torch.bmm({h}, {a}.expand(len({h}), -1, -1))",
            f"F.linear({h}, {a}.t(), {a}[0])",
            f"({a}.t() @ {h}.transpose(1, 2)).transpose(1, 2)",
            f"torch.tensordot({h}, {a}, 1)",
            f"torch.mm({flat}, {a}).unflatten(0, (-1, {w.t}))",
            f"({h}[..., None] * {a}).sum(2)",
        )
    )


@layer
def low_rank(w: Writer, h: str) -> str:
    a, b = w.parameter(w.d, 1), w.parameter(1, w.d)
    return w.var(w.pick(f"{h} + {h} @ ({a} @ {b})", f"{h} + ({h} @ {a}) @ {b}"))


@layer
def bilinear(w: Writer, h: str) -> str:
    d = w.d
    w.d = w.size()
    return w.var(f"{w.module(f'nn.Bilinear({d}, {d}, {w.d})')}({h}, torch.tanh({h}))")


@layer
def positions(w: Writer, h: str) -> str:
    table = w.module(f"nn.Embedding({w.t + 1}, {w.d})")
    index = f"torch.arange({h}.shape[1])"
    return w.var(
        w.pick(
            f"{h} + {table}({index})",
            f"{h} + {table}({index})[None]",
            f"{h} + {table}({index}[None].expand(len({h}), -1))",
            f"{h} + {table}.weight[1:]",
            f"{h} + {table}({index}).sum()",
        )
    )


@layer
def tokens_from_data(w: Writer, h: str) -> str:
    table = w.module(f"nn.Embedding(3, {w.d}, padding_idx={w.pick('None', '0')})")
    return w.var(f"{h} + {table}(({h}[..., 0] > 0).long() + ({h}[..., 1] > 0).long())")


@layer
def again(w: Writer, h: str) -> str:
    """Use a layer or its weight once more."""
    fits = [(name, a, b) for name, a, b in w.linears if w.d in (a, b)]
    if not fits:
        return linear(w, h)
    name, a, b = w.rng.choice(fits)
    if w.d == a:
        w.d = b
        return w.var(
            w.pick(f"{name}({h})", f"F.linear({h}, {name}.weight)", f"{h} @ {name}.weight.t()")
        )
    w.d = a
    return w.var(w.pick(f"{h} @ {name}.weight", f"F.linear({h}, {name}.weight.t())"))


@layer
def twice(w: Writer, h: str) -> str:
    name = w.linear(w.d)
    return w.var(f"{name}(torch.tanh({name}({h})))")


@layer
def tied(w: Writer, h: str) -> str:
    a, b = w.linear(w.d), w.linear(w.d)
    w.init.append(f"{b}.weight = {a}.weight")
    return w.var(f"{b}(torch.tanh({a}({h})))")


@layer
def scan(w: Writer, h: str) -> str:
    p, s, seen = w.parameter(w.d), w.fresh("s"), w.fresh("seen")
    w.line(f"{s}, {seen} = torch.zeros_like({h}[:, 0]), []")
    w.line(f"for e in {h}.unbind(1):", f"    {s} = {s} * {p}.sigmoid() + e; {seen}.append({s})")
    return w.var(f"torch.stack({seen}, 1)")


@layer
def shape(w: Writer, h: str) -> str:
    return w.var(
        w.pick(
            f"{h}.cumsum(1)",
            f"{h}.flip(1)",
            f"{h}.transpose(0, 1).contiguous().transpose(0, 1)",
            f"{h}.roll(1, 2)",
            f"torch.fft.irfft(torch.fft.rfft({h}, dim=2), n={w.d}, dim=2)",
            f"{h}.sort(dim=2, stable=True).values",
            f"{h}.softmax(-1)",
            f"torch.where({h} > 0, {h}, 0.1 * {h})",
            f"F.normalize({h}, dim=-1)",
            f"{h} / {h}.detach().norm(dim=(1, 2), keepdim=True).clamp_min(1e-3)",
        )
    )


@layer
def prompt(w: Writer, h: str) -> str:
    if w.t > 4:
        return activation(w, h)
    p, t = w.parameter(1, w.d), w.t
    w.t += 1
    if w.coin():
        return w.var(f"torch.cat([{p}.expand(len({h}), 1, -1), {h}], 1)")
    z = w.var(f"{h}.new_zeros(len({h}), {t + 1}, {w.d})")
    w.line(f"{z}[:, 1:] = {h}", f"{z}[:, :1] = {p}")
    return z


@layer
def crop(w: Writer, h: str) -> str:
    if w.t == 1:
        return activation(w, h)
    w.t -= 1
    return w.var(w.pick(f"{h}[:, 1:]", f"{h}[:, :-1]", f"{h}[:, 1:] - {h}[:, :-1]"))
