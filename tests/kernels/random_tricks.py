"""Pieces that go round what a capture sees: in-place writes, hooks, routing, own gradients."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.kernels.random_pieces import LAYERS, Writer, layer, linear


class Round(torch.autograd.Function):
    """Rounds; the gradient goes straight through."""

    @staticmethod
    def forward(ctx: Any, w: Tensor) -> Tensor:
        return torch.round(w * 8) / 8

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> Tensor:
        return g[0]


class Reverse(torch.autograd.Function):
    """The identity, whose gradient changes its sign."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> Tensor:
        return -g[0]


class OwnLinear(torch.autograd.Function):
    """A linear map with a backward pass by hand, as fused kernels have it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return F.linear(x, w, b)

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, w = ctx.saved_tensors
        flat = g[0].flatten(0, -2)
        return g[0] @ w, flat.t() @ x.flatten(0, -2), flat.sum(0)


def doubled(module: nn.Module, gi: Any, go: Any) -> tuple[Tensor | None, ...]:
    """A full backward hook that doubles what goes further down."""
    return tuple(g if g is None else 2 * g for g in gi)


class Symmetric(nn.Module):
    """A parametrization."""

    def forward(self, w: Tensor) -> Tensor:
        return w.triu() + w.triu(1).transpose(0, 1)


class Doubled(nn.Module):
    """A parametrization that also fits what is no square."""

    def forward(self, w: Tensor) -> Tensor:
        return 2 * w + w.mean()


@torch.jit.script
def scripted_bias_gelu(x: Tensor, b: Tensor) -> Tensor:
    """A fused bias, as TorchScript has it."""
    return F.gelu(x + b)


@layer
def residual(w: Writer, h: str) -> str:
    t, d = w.t, w.d
    out = chain(w, h, 1)
    if (w.t, w.d) == (t, d):
        return w.var(f"{h} + {w.pick('1', '0.5', '1e-3')} * {out}")
    w.t, w.d = t, d
    return w.var(f"{h} + {out}.sum((1, 2), keepdim=True).tanh()")


@layer
def block(w: Writer, h: str) -> str:
    if w.depth > 1:
        return linear(w, h)
    child = w.child()
    out = chain(child, "x", w.rng.randint(1, 3))
    pair = w.coin(0.2)
    signature = w.pick("x", "x, *, scale=1.0", "x, mask=None")
    place = int(child.name.removeprefix("Block")) - 1
    w.classes[place] = child.source(signature, f"({out}, None)" if pair else out)
    name = w.module(f"{child.name}()")
    w.t, w.d = child.t, child.d
    called = f"{name}(x={h})" if w.coin(0.2) else f"{name}({h})"
    return w.var(called + ("[0]" if pair else ""))


@layer
def repeated_block(w: Writer, h: str) -> str:
    if w.depth > 1:
        return linear(w, h)
    child = w.child()
    out = chain(child, "x", 2)
    place = int(child.name.removeprefix("Block")) - 1
    same = (child.t, child.d) == (w.t, w.d)
    w.classes[place] = child.source("x", out)
    name = w.module(f"{child.name}()")
    if same and w.coin():
        return w.var(f"{name}({name}({h}))")
    other = w.module(f"{child.name}()")
    w.t, w.d = child.t, child.d
    return w.var(f"{name}({h}) * {w.pick(name, other)}({h}.tanh())")


@layer
def in_place(w: Writer, h: str) -> str:
    if w.coin(0.3):
        h = w.var(f"{h}.clone()")
        w.line(w.pick(f"{h}[:, 0] *= {w.parameter(w.d)}", f"{h}[:, :, 0] += {w.parameter()}"))
        return h
    out = w.size()
    new = w.var(f"{w.linear(out)}({h})")
    w.d = out
    w.line(
        w.pick(
            f"{new}.mul_(2).add_(1)",
            f"{new} += {w.parameter(out)}",
            f"{new}.relu_()" if w.coin() else f"F.relu({new}, inplace=True)",
            f"{new}.masked_fill_({new}.detach() > 1, 0.5)",
            f"{new}[:, -1] = {w.parameter(out)}",
            f"{new}.data.mul_(0.5)",
        )
    )
    return new


@layer
def detached(w: Writer, h: str) -> str:
    name = w.linear(w.d)
    return w.var(
        w.pick(
            f"{h} + {name}({h}.detach())",
            f"{h} + {name}({h}).detach()",
            f"{name}({h}) + F.linear({h}, {name}.weight.detach())",
            f"{name}({h} + ({h}.round() - {h}).detach())",
            f"{name}({h}) * torch.sigmoid({h}.detach())",
        )
    )


@layer
def no_grad_part(w: Writer, h: str) -> str:
    part = w.fresh("part")
    w.line("with torch.no_grad():", f"    {part} = {w.linear(w.d)}({h})")
    return w.var(f"{h} + {part} * {w.parameter(w.d)}")


@layer
def own_function(w: Writer, h: str) -> str:
    out = w.size()
    a, b, d = w.parameter(out, w.d), w.parameter(out), w.d
    kind = w.pick("weight", "state", "reverse", "own", "script")
    if kind == "state":
        return w.var(f"Round.apply({h}) + {w.parameter(d)}")
    if kind == "reverse":
        return w.var(f"Reverse.apply({w.module(f'nn.Linear({d}, {d})')}({h}))")
    w.d = out
    if kind == "script":
        return w.var(f"scripted_bias_gelu({w.module(f'nn.Linear({d}, {out})')}({h}), {b})")
    return w.var(
        f"OwnLinear.apply({h}, {a}, {b})"
        if kind == "own"
        else f"F.linear({h}, Round.apply({a}), Round.apply({b}))"
    )


@layer
def hook(w: Writer, h: str) -> str:
    out = w.size()
    name, p = w.linear(out), w.parameter(out)
    q = w.parameter(w.d)
    w.marks.add("closure")
    w.linears.pop()
    w.init.append(
        w.pick(
            f"{name}.register_forward_hook(lambda m, a, o: o * {p})",
            f"{name}.register_forward_pre_hook(lambda m, a: (a[0] * {q},))",
            f"{name}.register_forward_hook(lambda m, a, o: torch.tanh(o))",
            f"{name}.register_full_backward_hook(doubled)",
            f"{name}.register_forward_hook(lambda m, a, o: None)",
        )
    )
    w.d = out
    return w.var(f"{name}({h})")


@layer
def tensor_hook(w: Writer, h: str) -> str:
    new = w.var(f"{w.linear(w.d)}({h})")
    w.line(f"{new}.register_hook(lambda g: 2 * g) if {new}.requires_grad else None")
    return w.var(f"{new} * 1")


@layer
def parametrized(w: Writer, h: str) -> str:
    out = w.size()
    made = w.pick(
        "P.weight_norm({})",
        "P.spectral_norm({})",
        "P.orthogonal({})",
        "nn.utils.weight_norm({})",
        "prune.l1_unstructured({}, 'weight', 2)",
        "register_parametrization({}, 'weight', Doubled())",
        "register_parametrization({}, 'bias', Doubled())",
        "symmetric",
    )
    if made == "symmetric":
        made, out = "register_parametrization({}, 'weight', Symmetric())", w.d
    name = w.module(made.format(f"nn.Linear({w.d}, {out})"))
    w.d = out
    return w.var(f"{name}({h})")


@layer
def checkpointed(w: Writer, h: str) -> str:
    name = w.linear(w.d)
    inner = w.pick(name, f"lambda x: torch.tanh({name}(x) + {w.parameter(w.d)})")
    return w.var(f"checkpoint({inner}, {h}, use_reentrant=False)")


@layer
def routed(w: Writer, h: str) -> str:
    d, k, by = w.d, w.rng.randint(2, 3), w.fresh("e")
    kinds = ", ".join(f"nn.Linear({d}, {d}, bias={w.coin()})" for _ in range(k))
    experts, gate = w.module(f"nn.ModuleList([{kinds}])"), w.parameter(d, k)
    state = w.pick(h, f"{h}.mean(1)")  # by token or by example
    scores, out = w.var(f"({state} @ {gate}).softmax(-1)"), w.var(f"torch.zeros_like({h})")
    w.line(f"{by} = {scores}.argmax(-1)", f"for i, expert in enumerate({experts}):")
    w.line(f"    m = {by} == i")
    if w.coin():
        w.line("    if not m.any(): continue")
    weight = f"{scores}[m][:, i].view(-1, *[1] * ({h}[m].dim() - 1))" if w.coin() else "1"
    w.line(f"    {out}[m] = expert({h}[m]) * {weight}")
    return w.var(f"{h} + {out}")


@layer
def top_k(w: Writer, h: str) -> str:
    weights = w.parameter(3, w.d, w.d)
    scores = w.var(f"{h} @ {w.parameter(w.d, 3)}")
    best = w.var(f"{scores}.topk(2, dim=-1)")
    if w.coin():
        chosen = w.var(f"{weights}[{best}.indices]")  # (n, t, 2, d, d)
        return w.var(
            f"torch.einsum('ntd,ntkde,ntk->nte', {h}, {chosen}, {best}.values.softmax(-1))"
        )
    every = w.var(f"torch.einsum('ntd,kde->ntke', {h}, {weights})")
    index = f"{best}.indices[..., None].expand(-1, -1, -1, {w.d})"
    return w.var(f"{every}.gather(2, {index}).mean(2)")


@layer
def masked(w: Writer, h: str) -> str:
    m = w.var(w.pick(f"{h}[..., 0] > 0", f"{h}[:, 0, 0] > 0", f"{h}.sum((1, 2)) > 0"))
    new, name = w.var(f"{h}.clone()"), w.linear(w.d)
    if w.coin(0.3):
        w.line(f"if {m}.any():", f"    {new}[{m}] = {name}({h}[{m}])")
    else:
        w.line(f"{new}[{m}] = {name}({h}[{m}])")
    return new


@layer
def each_alone(w: Writer, h: str) -> str:
    name = w.linear(w.d)
    if w.coin():
        other = w.linear(w.d)
        return w.var(f"torch.stack([{name}(e) if e[0, 0] > 0 else {other}(e.tanh()) for e in {h}])")
    return w.var(w.pick(f"torch.stack([{name}(e) for e in {h}])", f"torch.vmap({name})({h})"))


@layer
def unused(w: Writer, h: str) -> str:
    p, name = w.parameter(w.d), w.linear(w.d)
    return w.var(
        w.pick(f"{h} * 1", f"{h} + 0 * {p}", f"{h} + {p}.detach()", f"{h} + ({name}({h}) * 0)")
    )


@layer
def buffered(w: Writer, h: str) -> str:
    name = w.fresh("b")
    w.init.append(f"self.register_buffer({name!r}, torch.randn({w.d}))")
    return w.var(
        w.pick(f"{h} * self.{name}", f"{h} + {w.parameter(w.d)} * self.{name}.detach().abs()")
    )


@layer
def packed(w: Writer, h: str) -> str:
    out = w.size()
    name, lengths = (
        w.module(f"nn.GRU({w.d}, {out}, batch_first=True)"),
        w.var(f"({h}[..., 0] > 0).sum(1).clamp(min=1)"),
    )
    seen = w.var(
        f"{name}(pack_padded_sequence({h}, {lengths}, batch_first=True, enforce_sorted=False))[0]"
    )
    w.d = out
    return w.var(
        f"pad_packed_sequence({seen}, batch_first=True, total_length={w.t})[0] + {w.parameter(out)}"
    )


@layer
def inner_gradient(w: Writer, h: str) -> str:
    x, name = w.var(f"{h}.detach().requires_grad_()"), w.linear(w.d)
    u = w.var(f"torch.tanh({name}({x})).pow(2).sum()")
    return w.var(f"{h} + torch.autograd.grad({u}, {x}, create_graph=True)[0]")


@layer
def numpy(w: Writer, h: str) -> str:
    gate = f"torch.from_numpy({h}.detach().numpy() > 0).to({h})"
    return w.var(f"{h} * {w.parameter(w.d)} * {gate}")


@layer
def counted(w: Writer, h: str) -> str:
    """Change a buffer or an attribute that nothing depends on."""
    name = w.fresh("count")
    w.init.append(f"self.register_buffer({name!r}, torch.zeros(()))")
    w.line(
        w.pick(
            f"self.{name} += 1",
            f"self.{name} = self.{name} + len({h})",
            f"self.{name}.data = {h}.detach().mean()",
            f"self.seen = {h}.detach()",
            f"self.kept = {h}",
        )
    )
    return h


@layer
def containers(w: Writer, h: str) -> str:
    d = w.d
    made = f"nn.ParameterDict({{'a': torch.randn({d}), 'b': torch.randn({d}, {d})}})"
    name = w.module(made)
    return w.var(f"{h} @ {name}['b'] + {name}['a']")


def chain(w: Writer, h: str, length: int) -> str:
    """Write some pieces, one after another."""
    for _ in range(length):
        h = w.rng.choice(LAYERS)(w, h)
    return h


NAMES = (
    "Round",
    "Reverse",
    "OwnLinear",
    "Symmetric",
    "Doubled",
    "doubled",
    "scripted_bias_gelu",
)
"""What sources take from this module."""
