"""Kind M: models that change as they run, and must come back as they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.kernels.troubles import Given, Net, ids, sequences, trouble, vectors

# -- M: an oracle that calls the model once first finds it settled


def settling(words: str = "", tolerance: float = 1e-6) -> Callable[[Callable[[], Given]], None]:
    """A model that its first call changes, and later ones do not."""

    def register(make: Callable[[], Given]) -> None:
        def settled() -> Given:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                model, batch = make()
            with torch.no_grad():
                model.eval()(batch)
            return model, batch

        keywords = {"name": make.__name__, "tolerance": tolerance, "truth": settled}
        trouble("M", "either", words, **keywords)(make)

    return register


@settling(tolerance=1e-5)
def embedding_of_a_largest_norm() -> Given:
    table = nn.Embedding(10, 4, max_norm=0.5)
    return nn.Sequential(table, nn.Flatten(), nn.Linear(12, 2)).double(), ids()


@settling(tolerance=1e-5)
def bag_of_a_largest_norm() -> Given:
    bag = nn.EmbeddingBag(10, 4, max_norm=0.7, mode="sum")
    return nn.Sequential(bag, nn.Linear(4, 2)).double(), ids()


@settling()
def parameters_set_by_the_first_batch() -> Given:
    """ActNorm: the first call fits shift and scale to the batch."""

    class ActNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift, self.scale = nn.Parameter(torch.zeros(5)), nn.Parameter(torch.ones(5))
            self.register_buffer("ready", torch.tensor(False))

        def forward(self, h: Tensor) -> Tensor:
            if not self.ready:
                self.shift.data = -h.detach().mean(0)
                self.scale.data = 1 / h.detach().std(0)
                self.ready.fill_(True)
            return (h + self.shift) * self.scale

    return Net(lambda m, h: m.n(h), n=ActNorm()), vectors()


@settling()
def weight_made_a_unit_in_place() -> Given:
    def unit(m: Any, h: Tensor) -> Tensor:
        with torch.no_grad():
            m.w.div_(m.w.norm(dim=1, keepdim=True))
        return h @ m.w.t()

    return Net(unit, w=torch.randn(5, 5)), vectors()


@settling()
def weight_clipped_through_data() -> Given:
    def clipped(m: Any, h: Tensor) -> Tensor:
        m.w.data.clamp_(-0.5, 0.5)
        return h @ m.w

    return Net(clipped, w=torch.randn(5, 5)), vectors()


@settling()
def a_lazy_table_of_sines() -> Given:
    """A buffer that the first call makes."""

    class Sines(nn.Module):
        def forward(self, h: Tensor) -> Tensor:
            if not hasattr(self, "table"):
                self.register_buffer("table", torch.arange(h.shape[1], dtype=h.dtype).sin())
            return h + self.table[:, None]

    return Net(lambda m, h: m.c(m.s(h)).tanh(), s=Sines(), c=nn.Linear(5, 5)), sequences()


@trouble("M", "kernel")
def buffer_assigned_anew() -> Given:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, h: Tensor) -> Tensor:
            self.seen = self.seen + len(h)
            return h

    return Net(lambda m, h: m.n(h), n=Counting()), vectors()


@trouble("M", "kernel")
def buffer_counted_in_place() -> Given:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros((), dtype=torch.long))

        def forward(self, h: Tensor) -> Tensor:
            self.seen += 1
            return h

    return Net(lambda m, h: m.n(h), n=Counting()), vectors()


@trouble("M", "kernel")
def statistics_kept_and_not_used() -> Given:
    class Kept(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(5))

        def forward(self, h: Tensor) -> Tensor:
            self.mean.data = 0.9 * self.mean + 0.1 * h.detach().mean(0)
            return h

    return Net(lambda m, h: m.n(h), n=Kept()), vectors()


class Remembers(nn.Module):
    """Reads what an earlier call left, and does not depend on it; a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("last", torch.zeros(()))
        self.p = nn.Parameter(torch.randn(5))

    def forward(self, h: Tensor) -> Tensor:
        self.last.data = h.detach().mean() + 0 * self.last
        return h * self.p


@trouble("M", "kernel", deadly=True)
def buffer_that_keeps_what_a_transform_made() -> Given:
    """Under vmap it would keep a tensor that dies with the transform."""
    return Net(lambda m, h: m.n(h), n=Remembers()), vectors()


@trouble("M", "kernel", deadly=True)
def attribute_that_keeps_what_a_transform_made() -> Given:
    class Kept(Remembers):
        def forward(self, h: Tensor) -> Tensor:
            self.seen = h.detach() + 0 * getattr(self, "seen", h).detach().mean()
            return torch.einsum("nd,d->nd", h, self.p)

    return Net(lambda m, h: m.n(h), n=Kept()), vectors()


@trouble("M", "either")
def gradients_switched_in_forward() -> Given:
    def switched(m: Any, h: Tensor) -> Tensor:
        m.w.requires_grad_(True)
        return h @ m.w

    return Net(switched, w=torch.randn(5, 5)), vectors()


@trouble("M", "either", "mode|train|random|mixes")
def mode_switched_in_forward() -> Given:
    def switched(m: Any, h: Tensor) -> Tensor:
        m.drop.train()
        m.drop.eval()
        return m.drop(h)

    return Net(switched, drop=nn.Dropout(0.5)), vectors()


@trouble("M", "either")
def hooks_registered_in_forward() -> Given:
    def hooked(m: Any, h: Tensor) -> Tensor:
        handle = m.c.register_forward_hook(lambda module, args, out: torch.tanh(out))
        try:
            return m.c(h)
        finally:
            handle.remove()

    return Net(hooked, c=nn.Linear(5, 5)), vectors()


@trouble("M", "kernel")
def modes_that_differ_by_module() -> Given:
    net = Net(lambda m, h: m.d(m.n(h)), d=nn.Dropout(), n=nn.BatchNorm1d(5)).train()
    net.n.eval()
    net.a.weight.requires_grad_(False)
    net.b.weight.grad = torch.ones_like(net.b.weight)
    return net, vectors()
