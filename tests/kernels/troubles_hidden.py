"""Kinds B and C: parameters that no capture sees, and those that hardly count beside the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ntk_propulsion.kernels.tunings import Parameters
from tests.kernels.troubles import (
    D,
    Given,
    Net,
    Round,
    RoundedLinear,
    frozen,
    ids,
    sequences,
    trouble,
    vectors,
)

Middle = Callable[[Any, Tensor], Tensor]


@torch.jit.script
def scripted_gain(x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """A fused gain and bias."""
    return torch.tanh(x * gain + bias)


class Fused(torch.autograd.Function):
    """A linear layer with a backward pass by hand."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return x @ w.t()

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> tuple[Tensor, Tensor]:
        x, w = ctx.saved_tensors
        return g[0] @ w, g[0].flatten(0, -2).t() @ x.flatten(0, -2)


def only(*names: str) -> dict[str, Any]:
    """Train these parameters alone: then there may be no captured use at all."""
    return {"tuning": Parameters(names)}


# -- B


@trouble("B", "kernel")
def rounded_weights_alone() -> Given:
    return nn.Sequential(RoundedLinear(4, 5), nn.Tanh(), RoundedLinear(5, 2)).double(), vectors()


@trouble("B", "kernel", **only("0.*"))
def one_rounded_layer_of_a_model_that_has_others() -> Given:
    return nn.Sequential(RoundedLinear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double(), vectors()


@trouble("B", "kernel", tuning="trainable")
def soft_prompt_written_by_index() -> Given:
    def prompt(m: Any, h: Tensor) -> Tensor:
        z = h.new_zeros(len(h), h.shape[1] + 2, 5)
        z[:, 2:], z[:, :2] = h, m.prompt
        return torch.tanh(m.c(z))

    net = Net(prompt, prompt=torch.randn(2, 5), c=nn.Linear(5, 5))
    return frozen(net, "prompt"), sequences()


@trouble("B", "kernel", **only("token"))
def class_token_copied_into_its_place() -> Given:
    def token(m: Any, h: Tensor) -> Tensor:
        z = torch.empty(len(h), h.shape[1] + 1, 5, dtype=D)
        z[:, 1:].copy_(h)
        z[:, 0].copy_(m.token)
        return m.att(z, z, z)[0]

    att = nn.MultiheadAttention(5, 1, batch_first=True)
    return Net(token, token=torch.randn(5), att=att), sequences()


@trouble("B", "kernel", **only("shift"))
def added_by_index_add() -> Given:
    at = torch.tensor([0, 2])
    return Net(lambda m, h: h.index_add(1, at, m.shift.expand(len(h), 2)), shift=torch.randn(2)), (
        vectors()
    )


@trouble("B", "kernel", tuning="bitfit")
def bias_of_a_scripted_function() -> Given:
    net = Net(
        lambda m, h: scripted_gain(h, m.gain, m.bias), gain=torch.ones(5), bias=torch.zeros(5)
    )
    net.a.bias = net.b.bias = None
    return net, vectors()


@trouble("B", "kernel", **only("w"))
def fused_layer_with_its_own_backward() -> Given:
    return Net(lambda m, h: Fused.apply(h, m.w), w=torch.randn(5, 5)), vectors()


@trouble("B", "kernel", **only("scale"))
def learned_step_of_a_quantiser() -> Given:
    def quantised(m: Any, h: Tensor) -> Tensor:
        return h + ((Round.apply(h / m.scale)) * m.scale - h)

    return Net(quantised, scale=torch.tensor(0.37)), vectors()


@trouble("B", "either")
def traced() -> Given:
    return torch.jit.trace(Net(), vectors(2)), vectors()


@trouble("B", "either")
def scripted() -> Given:
    layers = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
    return torch.jit.script(layers.double()), vectors()


@trouble("B", "kernel", **only("part.*"))
def scripted_part() -> Given:
    part = torch.jit.script(nn.Sequential(nn.Linear(5, 5), nn.Tanh()))
    return Net(lambda m, h: m.part(h), part=part), vectors()


@trouble("B", "kernel", **only("u", "v"))
def parameters_read_inside_vmap() -> Given:
    def each(m: Any, h: Tensor) -> Tensor:
        return torch.vmap(lambda e: torch.tanh(e * m.u).cumsum(0) + m.v)(h)

    return Net(each, u=torch.randn(5), v=torch.randn(5)), vectors()


@trouble("B", "kernel", **only("unused", "shift"))
def one_that_is_not_used_beside_one_that_is() -> Given:
    net = Net(
        lambda m, h: h + m.shift.detach() + m.shift, unused=torch.ones(3), shift=torch.ones(5)
    )
    return net, vectors()


@trouble("B", "kernel", **only("table.weight"))
def embedding_read_by_one_hot_and_by_index() -> Given:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.out = nn.Embedding(10, 5), nn.Linear(5, 2)

        def forward(self, ids: Tensor) -> Tensor:
            hot = F.one_hot(ids, 10).to(self.out.weight)
            h = Round.apply(self.table.weight)[ids] + hot @ self.table.weight
            return self.out(h.mean(1))

    return Twice().double(), ids()


# -- C


class Branch(nn.Module):
    """A residual branch behind a scale."""

    def __init__(self, layer: nn.Module, scale: float) -> None:
        super().__init__()
        self.layer, self.scale = layer, nn.Parameter(torch.full((5,), scale))

    def forward(self, h: Tensor) -> Tensor:
        return h + self.scale * torch.tanh(self.layer(h))


def small(
    name: str, layer: Callable[[], nn.Module], *scales: float, expect: str = "kernel"
) -> None:
    """A branch behind scales, in float64, and in float32 where that can tell it from noise."""
    for scale in scales:

        def wide(scale: float = scale) -> Given:
            return Net(lambda m, h: m.branch(h), branch=Branch(layer(), scale)), sequences()

        def narrow(scale: float = scale) -> Given:
            model, x = wide(scale)
            return model.float(), x.float()

        trouble("C", expect, name=f"{name}_behind_{scale}")(wide)
        if scale >= 1e-6:
            keywords = {"tolerance": 1e-3, "truth": _seeded(wide)}
            trouble("C", expect, name=f"{name}_behind_{scale}_float32", **keywords)(narrow)


def _seeded(build: Callable[[], Given]) -> Callable[[], Given]:
    def seeded() -> Given:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return build()

    return seeded


class Hooked(nn.Linear):
    """A layer whose gradient a hook doubles: what a capture of cotangents may see twice."""

    def __init__(self) -> None:
        super().__init__(5, 5)
        self.register_full_backward_hook(_doubled)


def _doubled(module: nn.Module, gi: Any, go: Any) -> Any:
    return tuple(g if g is None else 2 * g for g in gi)


class Partly(nn.Linear):
    """One weight in a captured use and in one that is not."""

    def __init__(self) -> None:
        super().__init__(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + F.linear(x, Round.apply(self.weight))


class Written(nn.Linear):
    """A layer whose output is overwritten behind autograd's back."""

    def __init__(self) -> None:
        super().__init__(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        y.data.mul_(0.5)
        return y


class Scripted(nn.Module):
    """Parameters of a scripted function."""

    def __init__(self) -> None:
        super().__init__()
        self.gain, self.bias = nn.Parameter(torch.rand(5)), nn.Parameter(torch.rand(5))

    def forward(self, x: Tensor) -> Tensor:
        return scripted_gain(x, self.gain, self.bias)


small("linear", lambda: nn.Linear(5, 5), 1e-4, 1e-6, 1e-8)
small("rounded", lambda: RoundedLinear(5, 5), 1e-4, 1e-6, 1e-8)
small("hooked", Hooked, 1e-5, 1e-8)
small("partly_captured", Partly, 1e-6, 1e-7)
small("overwritten", Written, 1e-6, 1e-8)
small("scripted", Scripted, 1e-5, 1e-7)
small("recurrent", lambda: First(nn.GRU(5, 5, batch_first=True)), 1e-6)
small("attention", lambda: Self(nn.MultiheadAttention(5, 1, batch_first=True)), 1e-6)


class First(nn.Module):
    """The first of what a module returns."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, h: Tensor) -> Tensor:
        return self.inner(h)[0]


class Self(First):
    """Attention to itself."""

    def forward(self, h: Tensor) -> Tensor:
        return self.inner(h, h, h)[0]


def _attend(m: Any, h: Tensor) -> Tensor:
    """The key's bias has no gradient but rounding: softmax takes what all keys share away."""
    scores = torch.einsum("nid,njd->nij", m.q(h), m.k(h))
    return torch.einsum("nij,njd->nid", scores.softmax(-1), m.v(h))


@trouble("C", "kernel", keywords={"strict": True})
def bias_of_a_key() -> Given:
    layers = {name: nn.Linear(5, 5) for name in "qkv"}
    return Net(_attend, **layers), sequences()


@trouble("C", "kernel", keywords={"strict": True}, tolerance=1e-3)
def bias_of_a_key_float32() -> Given:
    layers = {name: nn.Linear(5, 5) for name in "qkv"}
    return Net(_attend, **layers).float(), sequences().float()


@trouble("C", "kernel", keywords={"strict": True})
def bias_of_a_key_beside_a_small_branch() -> Given:
    layers = {name: nn.Linear(5, 5) for name in "qkv"}
    branch = Branch(nn.Linear(5, 5), 1e-7)
    return Net(lambda m, h: m.branch(_attend(m, h)), branch=branch, **layers), sequences()


@trouble("C", "kernel", keywords={"strict": True})
def bias_before_a_normalisation() -> Given:
    parts = {"c": nn.Conv1d(5, 5, 1), "n": nn.InstanceNorm1d(5)}
    return Net(lambda m, h: m.n(m.c(h.transpose(1, 2))).pow(3).transpose(1, 2), **parts), (
        sequences(6, 5)
    )


@trouble("C", "kernel", outputs=lambda y: y.log_softmax(-1))
def shift_of_all_logits() -> Given:
    class Shifted(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + self.shift

    return Shifted(shift=torch.ones(())), vectors()


@trouble("C", "kernel")
def prompt_by_index_in_a_branch_that_hardly_counts() -> Given:
    def prompt(m: Any, h: Tensor) -> Tensor:
        z = h.new_zeros(len(h), 4, 5)
        z[:, 1:], z[:, 0] = h, m.prompt
        return h + 1e-6 * torch.tanh(m.c(z)).mean(1, keepdim=True)

    return Net(prompt, prompt=torch.randn(5), c=nn.Linear(5, 5)), sequences()


@trouble("C", "kernel")
def gate_that_is_almost_shut() -> Given:
    net = Net(
        lambda m, h: h + F.softplus(m.gate) * m.c(h),
        gate=torch.tensor(-18.0),
        c=RoundedLinear(5, 5),
    )
    return net, vectors()


@trouble("C", "kernel")
def one_logit_a_billion_times_the_other() -> Given:
    class Uneven(Net):
        def forward(self, x: Tensor) -> Tensor:
            h = torch.tanh(self.a(x))
            return torch.stack([self.big(h)[:, 0] * 1e6, self.c(h)[:, 0] * 1e-3], 1)

    return Uneven(big=nn.Linear(5, 1), c=RoundedLinear(5, 1)), vectors()
