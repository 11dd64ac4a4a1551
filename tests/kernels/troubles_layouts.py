"""Kind O: examples of one batch that the model treats each in its own way."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from ntk_propulsion.kernels.tunings import Parameters
from tests.kernels.troubles import D, Given, Net, sequences, trouble, vectors


def experts(n: int, **keywords: Any) -> nn.ModuleList:
    """Linear layers."""
    return nn.ModuleList(nn.Linear(5, 5, **keywords) for _ in range(n))


def one_way(first: int, n: int = 6) -> Tensor:
    """Vectors of which the first go one way (x[0] > 0) and the others another."""
    x = vectors(n)
    x[:, 0] = x[:, 0].abs() * torch.where(torch.arange(n) < first, 1.0, -1.0)
    return x


@trouble("O", "kernel")
def experts_by_example_that_the_first_two_do_not_reach() -> Given:
    class Routed(Net):
        def forward(self, x: Tensor) -> Tensor:
            h, out = torch.tanh(self.a(x)), []
            for row, state in zip(x, h, strict=True):
                out.append(self.e[0](state) if row[0] > 0 else self.e[1](state).tanh())
            return self.b(torch.stack(out))

    return Routed(e=experts(2)), one_way(2)


@trouble("O", "kernel")
def experts_by_token() -> Given:
    def route(m: Any, h: Tensor) -> Tensor:
        scores, out = (h @ m.gate).softmax(-1), torch.zeros_like(h)
        best = scores.argmax(-1)
        for i, expert in enumerate(m.e):
            at = best == i
            out[at] = expert(h[at]) * scores[at][:, i : i + 1]
        return h + out

    return Net(route, gate=torch.randn(5, 3) * 3, e=experts(3)), sequences(6, 4)


@trouble("O", "kernel")
def experts_by_token_over_a_flat_batch() -> Given:
    def route(m: Any, h: Tensor) -> Tensor:
        flat = h.reshape(-1, 5)
        best, out = (flat @ m.gate).argmax(-1), torch.zeros_like(flat)
        for i, expert in enumerate(m.e):
            at = (best == i).nonzero().flatten()
            if len(at):
                out.index_add_(0, at, expert(flat[at]))
        return out.view_as(h)

    return Net(route, gate=torch.randn(5, 4) * 3, e=experts(4, bias=False)), sequences(5, 3)


@trouble("O", "kernel")
def raw_parameters_of_the_best_two_experts() -> Given:
    def route(m: Any, h: Tensor) -> Tensor:
        best = (h @ m.gate).topk(2)
        done = torch.einsum("nd,nkde->nke", h, m.w[best.indices])
        return (done * best.values.softmax(-1)[..., None]).sum(1)

    return Net(route, gate=torch.randn(5, 4), w=torch.randn(4, 5, 5)), vectors()


@trouble("O", "kernel")
def sorted_by_expert_and_back() -> Given:
    """Grouped products, as fused mixtures of experts have them."""

    def route(m: Any, h: Tensor) -> Tensor:
        flat = h.reshape(-1, 5)
        best = (flat @ m.gate).argmax(-1)
        order = best.argsort(stable=True)
        parts = flat[order].split(best.bincount(minlength=3).tolist())
        done = torch.cat([part @ w for part, w in zip(parts, m.w, strict=True)])
        return done[order.argsort()].view_as(h)

    return Net(route, gate=torch.randn(5, 3), w=torch.randn(3, 5, 5)), sequences()


@trouble("O", "kernel")
def tokens_chosen_by_a_mask() -> Given:
    def chosen(m: Any, h: Tensor) -> Tensor:
        at, out = h[..., 0] > 0, h.clone()
        out[at] = torch.tanh(m.c(h[at]))
        return out

    return Net(chosen, c=nn.Linear(5, 5)), sequences(6, 4)


@trouble("O", "kernel")
def examples_chosen_by_a_mask() -> Given:
    class Chosen(Net):
        def forward(self, x: Tensor) -> Tensor:
            h, at = torch.tanh(self.a(x)), x[:, 0] > 0
            out = torch.zeros_like(h)
            out[at], out[~at] = self.c(h[at]), self.d(h[~at])
            return self.b(out)

    return Chosen(c=nn.Linear(5, 5), d=nn.Linear(5, 5)), one_way(2)


@trouble("O", "kernel")
def a_mask_that_takes_one_example_of_the_first_two() -> Given:
    """One of one and one of two: as if the layer's output were shared by all."""

    class Chosen(Net):
        def forward(self, x: Tensor) -> Tensor:
            h, at = torch.tanh(self.a(x)), x[:, 0] > 0
            return self.b(h.masked_scatter(at[:, None], torch.tanh(self.c(h[at]))))

    x = one_way(6)
    x[1, 0] = x[3, 0] = -1
    return Chosen(c=nn.Linear(5, 5)), x


class Packed(Net):
    """A recurrent net over packed sequences, with a parameter of its own."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        h, lengths = torch.tanh(self.a(x)), mask.sum(1)
        packed = pack_padded_sequence(h, lengths, batch_first=True, enforce_sorted=False)
        seen, last = self.rnn(packed)
        padded = pad_packed_sequence(seen, batch_first=True, total_length=x.shape[1])[0]
        return self.b(padded.sum(1) * self.gain + last[-1])


def padded(n: int = 6, t: int = 4) -> dict[str, Tensor]:
    """Sequences of 1 to t steps."""
    lengths = torch.tensor([t, t, 1, 2, 3, 1])[:n]
    return {"x": sequences(n, t), "mask": torch.arange(t) < lengths[:, None]}


def packed() -> Given:
    return Packed(rnn=nn.GRU(5, 5, batch_first=True), gain=torch.randn(5)), padded()


trouble("O", "kernel", name="packed_sequences")(packed)
trouble("O", "kernel", name="gain_beside_packed_sequences", tuning=Parameters(("gain",)))(packed)


@trouble("O", "kernel")
def unpadded_tokens_in_one_row() -> Given:
    """All tokens that are no padding in one long row, as with flash attention."""

    class Unpadded(Net):
        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            flat = torch.tanh(self.c(torch.tanh(self.a(x[mask]))))
            parts = flat.split(mask.sum(1).tolist())
            return self.b(torch.stack([part.mean(0) for part in parts]))

    return Unpadded(c=nn.Linear(5, 5)), padded()


@trouble("O", "kernel")
def pooled_by_index() -> Given:
    """Nodes of all graphs in one list, and to which graph each belongs."""

    class Pooled(Net):
        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            graph = mask.nonzero()[:, 0]
            h = torch.tanh(self.a(x[mask]))
            out = h.new_zeros(len(x), 5).index_add(0, graph, self.c(h))
            return self.b(torch.tanh(out))

    return Pooled(c=nn.Linear(5, 5)), padded()


@trouble("O", "kernel")
def padded_inside_the_model() -> Given:
    class Own(Net):
        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            rows = [self.c(torch.tanh(self.a(row[at]))) for row, at in zip(x, mask, strict=True)]
            return self.b(pad_sequence(rows, batch_first=True).sum(1))

    return Own(c=nn.Linear(5, 5)), padded()


@trouble("O", "kernel")
def early_exit() -> Given:
    """Examples leave the loop when they are done, each after its own number of rounds."""

    class Exit(Net):
        def forward(self, x: Tensor) -> Tensor:
            h, active = torch.tanh(self.a(x)), torch.ones(len(x), dtype=torch.bool)
            for _ in range(4):
                if not active.any():
                    break
                h = h.masked_scatter(active[:, None], torch.tanh(self.c(h[active])))
                active = active & (h[:, 0] > x[:, 0] / 4)
            return self.b(h)

    return Exit(c=nn.Linear(5, 5)), vectors()


@trouble("O", "kernel")
def recursion_of_each_example_s_own_depth() -> Given:
    class Deep(Net):
        def forward(self, x: Tensor) -> Tensor:
            out = []
            for i, row in enumerate(x):
                h = torch.tanh(self.a(row))
                for _ in range(int(row[1].abs() * 3) % 4):
                    h = torch.tanh(self.c(h) + self.p)
                out.append(h + 0 * i)
            return self.b(torch.stack(out))

    return Deep(c=nn.Linear(5, 5), p=torch.randn(5)), vectors()


@trouble("O", "kernel")
def sizes_that_are_all_alike() -> Given:
    """N, T and d are all 5: nothing can be told by size."""

    class Square(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c, self.w = nn.Linear(5, 5), nn.Parameter(torch.randn(5, 5))

        def forward(self, x: Tensor) -> Tensor:
            h = self.c(x.transpose(0, 1)).transpose(1, 2)  # t, d, n
            return (self.w @ h.tanh()).mean(0).t()

    return Square().double(), torch.randn(5, 5, 5, dtype=D)


@trouble("O", "kernel")
def first_and_last_steps_that_are_chosen_by_score() -> Given:
    def best(m: Any, h: Tensor) -> Tensor:
        at = m.score(h).squeeze(-1).topk(2, dim=1).indices
        return m.c(h.gather(1, at[..., None].expand(-1, -1, 5)))

    return Net(best, score=nn.Linear(5, 1), c=nn.Linear(5, 5)), sequences(6, 4)


@trouble("O", "kernel")
def embedding_of_tokens_that_occur() -> Given:
    class Unique(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.c, self.b = nn.Embedding(10, 4), nn.Linear(4, 5), nn.Linear(5, 2)

        def forward(self, ids: Tensor) -> Tensor:
            kinds, where = ids.unique(return_inverse=True)
            return self.b(torch.tanh(self.c(self.table(kinds)))[where].mean(1))

    return Unique().double(), torch.randint(0, 10, (6, 3))


@trouble("O", "kernel")
def packed_bags_of_tokens() -> Given:
    class Bags(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bag, self.b = nn.EmbeddingBag(10, 4, mode="sum"), nn.Linear(4, 2)

        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            offsets = F.pad(mask.sum(1).cumsum(0), (1, 0))[:-1]
            return self.b(torch.tanh(self.bag(ids[mask], offsets)))

    return Bags().double(), {"ids": torch.randint(0, 10, (6, 4)), "mask": padded()["mask"]}
