"""Kind N: models that stop the general rule; autograd computes them all."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, jvp, stack_module_state
from torch.nn.utils.rnn import pack_sequence, unpack_sequence
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from ntk_propulsion.kernels.tunings import Parameters
from tests.kernels.troubles import D, Given, Net, Round, sequences, trouble, vectors


class Checkpointed(Net):
    """A parameter of its own inside what is checkpointed."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__(p=torch.randn(5), c=nn.Linear(5, 5))
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        def part(h: Tensor) -> Tensor:
            return torch.tanh(self.c(h) + self.p)

        if self.reentrant is None:
            return self.b(part(torch.tanh(self.a(x))))
        return self.b(checkpoint(part, torch.tanh(self.a(x)), use_reentrant=self.reentrant))


def _plain_checkpoint() -> Given:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Checkpointed(True)
        model.reentrant = None
        return model, vectors()


@trouble("N", "kernel")
def checkpointed_part() -> Given:
    return Checkpointed(False), vectors()


@trouble("N", "either", truth=_plain_checkpoint)
def checkpointed_part_that_enters_again() -> Given:
    return Checkpointed(True), vectors()


@trouble("N", "kernel")
def checkpointed_blocks_in_a_row() -> Given:
    blocks = nn.Sequential(*(nn.Sequential(nn.Linear(5, 5), nn.Tanh()) for _ in range(4)))

    def run(m: Any, h: Tensor) -> Tensor:
        return checkpoint_sequential(m.blocks, 2, h * m.p, use_reentrant=False)

    return Net(run, blocks=blocks, p=torch.randn(5)), vectors()


@trouble("N", "kernel")
def residual_of_a_differential_equation() -> Given:
    """u'' of a small network, by autograd inside forward."""

    class Equation(Net):
        def forward(self, x: Tensor) -> Tensor:
            x = x.detach().requires_grad_()
            u = self.b(torch.tanh(self.a(x)) * self.p)
            first = torch.autograd.grad(u.sum(), x, create_graph=True)[0]
            second = torch.autograd.grad(first.sum(), x, create_graph=True)[0]
            return u + second.sum(1, keepdim=True)

    return Equation(p=torch.randn(5)), vectors()


@trouble("N", "kernel")
def gradient_by_func_inside() -> Given:
    def inner(m: Any, h: Tensor) -> Tensor:
        return h + torch.vmap(grad(lambda e: (m.p * e.tanh()).pow(2).sum()))(h)

    return Net(inner, p=torch.randn(5)), vectors()


@trouble("N", "kernel")
def jacobian_by_func_inside() -> Given:
    def inner(m: Any, h: Tensor) -> Tensor:
        return torch.vmap(jacrev(lambda e: torch.tanh(m.w @ e)))(h).sum(1)

    return Net(inner, w=torch.randn(5, 5)), vectors()


@trouble("N", "kernel")
def forward_mode_inside() -> Given:
    def inner(m: Any, h: Tensor) -> Tensor:
        return jvp(lambda e: torch.sin(e * m.p), (h,), (torch.ones_like(h),))[1]

    return Net(inner, p=torch.randn(5)), vectors()


@trouble("N", "kernel")
def sequences_packed_by_hand() -> Given:
    def packed(m: Any, h: Tensor) -> Tensor:
        rows = [row[: 1 + int(row[0, 0] > 0)] for row in h]
        seen = m.rnn(pack_sequence(rows, enforce_sorted=False))[0]
        return torch.stack([row[-1] for row in unpack_sequence(seen)]) * m.p

    return Net(packed, rnn=nn.LSTM(5, 5), p=torch.randn(5)), sequences()


@trouble("N", "kernel")
def numbers_through_numpy() -> Given:
    def gated(m: Any, h: Tensor) -> Tensor:
        gate = torch.from_numpy((h.detach().numpy() > 0).astype("float64"))
        return torch.einsum("ni,i->ni", h, m.w) * gate

    return Net(gated, w=torch.randn(5)), vectors()


@trouble("N", "kernel")
def numbers_through_python() -> Given:
    def stepped(m: Any, h: Tensor) -> Tensor:
        steps = [round(abs(v) * 3) for v in h.detach()[:, 0].tolist()]
        return torch.stack([row + m.p * step for row, step in zip(h, steps, strict=True)])

    return Net(stepped, p=torch.randn(5)), vectors()


@trouble("N", "either")
def ensemble_of_stacked_states() -> Given:
    """stack_module_state detaches: the members have no gradient, for autograd neither."""

    def members(m: Any, h: Tensor) -> Tensor:
        stacked, _ = stack_module_state(list(m.nets))
        return torch.vmap(lambda w, b: (h @ w.t() + b).tanh())(
            stacked["weight"], stacked["bias"]
        ).mean(0)

    return Net(members, nets=nn.ModuleList(nn.Linear(5, 5) for _ in range(3))), vectors()


@trouble("N", "kernel")
def ensemble_that_stacks_its_own_parameters() -> Given:
    def members(m: Any, h: Tensor) -> Tensor:
        states = [dict(net.named_parameters()) for net in m.nets]
        stacked = {k: torch.stack([s[k] for s in states]) for k in states[0]}
        return torch.vmap(lambda s: functional_call(m.nets[0], s, (h,)).tanh())(stacked).mean(0)

    return Net(members, nets=nn.ModuleList(nn.Linear(5, 5) for _ in range(3))), vectors()


@trouble("N", "kernel")
def state_space_model_with_a_cache() -> Given:
    """A state written in place step by step, and kept after the call."""

    class Scan(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.decay, self.inner = nn.Parameter(torch.randn(5)), nn.Parameter(torch.randn(5))
            self.cache: Tensor | None = None

        def forward(self, h: Tensor) -> Tensor:
            state, out = h.new_zeros(len(h), 5), torch.empty_like(h)
            for t in range(h.shape[1]):
                state = state * self.decay.sigmoid() + h[:, t] * self.inner
                out[:, t] = state
            self.cache = state.detach()
            return out

    return Net(lambda m, h: m.s(h), s=Scan()), sequences()


@trouble("N", "kernel", tuning=Parameters(("p", "c.*")))
def own_function_around_a_module() -> Given:
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, h: Tensor, p: Tensor) -> Tensor:
            ctx.save_for_backward(h, p)
            return h * p

        @staticmethod
        def backward(ctx: Any, *g: Tensor) -> tuple[Tensor, Tensor]:
            h, p = ctx.saved_tensors
            return g[0] * p, (g[0] * h).sum(0)

    return Net(lambda m, h: m.c(Once.apply(h, m.p)), p=torch.randn(5), c=nn.Linear(5, 5)), vectors()


@trouble("N", "kernel")
def sparse_graph_of_features() -> Given:
    def spread(m: Any, h: Tensor) -> Tensor:
        return torch.sparse.mm(m.graph, (h * m.p).t()).t()

    net = Net(spread, p=torch.randn(5))
    net.register_buffer("graph", (torch.rand(5, 5, dtype=D) > 0.5).double().to_sparse())
    return net, vectors()


@trouble("N", "kernel")
def saved_tensors_packed_by_hooks() -> Given:
    def saved(m: Any, h: Tensor) -> Tensor:
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: t.numpy(force=True), torch.as_tensor
        ):
            return torch.tanh(h * m.p) * m.q

    return Net(saved, p=torch.randn(5), q=torch.randn(5)), vectors()


@trouble("N", "kernel")
def rounded_gain_of_a_recurrent_cell() -> Given:
    def cell(m: Any, h: Tensor) -> Tensor:
        state = None
        for step in h.unbind(1):
            state = m.cell(step * Round.apply(m.p), state)
        return state[0]

    return Net(cell, cell=nn.LSTMCell(5, 5), p=torch.randn(5)), sequences()
