"""Kind A: an example's output changes with the rest of the batch, or from call to call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.kernels.troubles import Given, Net, ids, sequences, trouble, vectors

Middle = Callable[[Any, Tensor], Tensor]


def mixing(name: str, middle: Middle, words: str = "mixes", **keywords: Any) -> None:
    """A model on vectors whose hidden states meet."""
    trouble("A", "refused", words, name=name)(lambda: (Net(middle, **keywords), vectors()))


def drawing(name: str, middle: Middle, **keywords: Any) -> None:
    """A model on vectors that is random in evaluation mode."""
    trouble("A", "refused", "random", name=name)(lambda: (Net(middle, **keywords), vectors()))


# -- batch_first left at its default


@trouble("A", "refused", "mixes")
def gru_sequence_first() -> Given:
    return Net(lambda m, h: m.rnn(h)[0][:, -1], rnn=nn.GRU(5, 5)), sequences()


@trouble("A", "refused", "mixes")
def backward_rnn_sequence_first() -> Given:
    """Example n depends on those after it alone: the first two on all others."""
    return Net(lambda m, h: m.rnn(h.flip(0))[0].flip(0), rnn=nn.RNN(5, 5)), sequences()


@trouble("A", "refused", "mixes")
def encoder_sequence_first() -> Given:
    layer = nn.TransformerEncoderLayer(5, 1, 6, dropout=0.0)
    return Net(lambda m, h: m.e(h), e=nn.TransformerEncoder(layer, 1)), sequences()


@trouble("A", "refused", "mixes")
def causal_attention_over_the_batch() -> Given:
    """The first example sees itself alone, as it should."""

    def attend(m: Any, h: Tensor) -> Tensor:
        mask = torch.ones(len(h), len(h), dtype=torch.bool).triu(1)
        return m.att(h, h, h, attn_mask=mask)[0]

    return Net(attend, att=nn.MultiheadAttention(5, 1)), sequences()


@trouble("A", "refused", "mixes")
def attention_over_a_flat_batch() -> Given:
    """Tokens of all examples in one sequence, without a mask between the examples."""

    def attend(m: Any, h: Tensor) -> Tensor:
        flat = h.reshape(1, -1, 5)
        return m.att(flat, flat, flat)[0].view_as(h)

    return Net(attend, att=nn.MultiheadAttention(5, 1, batch_first=True)), sequences()


# -- statistics of the batch, where outputs do not show them

ALONE = "mixes|alone|one example|finite"
"""One example has no statistics: its own call fails, or is NaN."""

mixing("mean_below_a_zero_head", lambda m, h: h - h.mean(0), zero_head=True)
mixing(
    "batch_norm_of_a_later_layer",
    lambda m, h: F.batch_norm(m.c(h), None, None, training=True),
    words=ALONE,
    c=nn.Linear(5, 5),
    zero_head=True,
)
mixing(
    "branch_with_statistics_behind_a_closed_gate",
    lambda m, h: h + m.gate * (h / h.std(0)),
    words=ALONE,
    gate=torch.zeros(()),
)
mixing("softmax_over_the_batch_beside", lambda m, h: h + 1e-3 * h.softmax(0))
mixing(
    "outputs_that_agree_and_gradients_that_do_not",
    lambda m, h: h + h.mean(0) - h.mean(0).detach(),
)
mixing(
    "group_norm_over_the_batch",
    lambda m, h: F.group_norm(h.t()[None].contiguous(), 5)[0].t(),
    words=ALONE,
    zero_head=True,
)


class AlwaysTrains(nn.BatchNorm1d):
    """Statistics of the batch in evaluation too."""

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, None, None, self.weight, self.bias, training=True)


mixing("batch_norm_that_always_trains", lambda m, h: m.n(h), n=AlwaysTrains(5), words=ALONE)

# -- scales of the whole tensor


def _rounded(h: Tensor, scale: Tensor) -> Tensor:
    return h + ((h / scale).round() * scale - h).detach()


@trouble("A", "refused", "mixes")
def activation_scale_over_all_examples() -> Given:
    x = vectors()
    x[0] *= 10
    return Net(lambda m, h: _rounded(m.c(h), m.c(h).detach().abs().max() / 7), c=nn.Linear(5, 5)), x


mixing("spread_of_all_states", lambda m, h: h / h.detach().std())
mixing("branch_by_the_mean_of_all", lambda m, h: torch.where(h > h.mean(), h, -h))
mixing("clipped_by_the_norm_of_all", lambda m, h: h / h.norm().clamp(min=1).detach())

# -- places in the batch

mixing("the_last_example_alone", lambda m, h: h + h[-1:].detach())
mixing("the_fifth_example_alone", lambda m, h: h + (h[4:5].mean() if len(h) > 4 else 0))
mixing("the_size_of_the_batch", lambda m, h: h * len(h) ** 0.5)
mixing("sizes_above_two", lambda m, h: h * (2 if len(h) > 2 else 1))
mixing("ranks_in_the_batch", lambda m, h: h * (1 + h[:, :1].argsort(0).argsort(0)))
mixing("examples_in_pairs", lambda m, h: h + h.roll(1, 0) * (torch.arange(len(h)) > 1)[:, None])
mixing(
    "a_number_for_each_place",
    lambda m, h: h + m.offset[: len(h)],
    offset=torch.arange(8.0)[:, None],
)
mixing("only_in_batches_of_threes", lambda m, h: h + (h.flip(0) if len(h) % 3 == 0 else 0))


@trouble("A", "refused", "mixes")
def two_equal_first_examples() -> Given:
    x = vectors()
    x[1] = x[0]  # the mean of these two is the example itself
    return Net(lambda m, h: h - 0.5 * h.mean(0)), x


@trouble("A", "refused", "mixes")
def equal_examples_but_one() -> Given:
    x = vectors(1).repeat(6, 1)
    x[5] += 1
    return Net(lambda m, h: h / h.detach().abs().amax(0)), x


@trouble("A", "refused", "mixes")
def experts_of_one_place_each() -> Given:
    """Switch routing: what comes after an expert is full passes it by."""

    def route(m: Any, h: Tensor) -> Tensor:
        expert, out = (h @ m.gate).argmax(1), h.clone()
        for i in range(2):
            mine = (expert == i).nonzero().flatten()[:2]  # capacity
            out[mine] = torch.tanh(h[mine] @ m.w[i])
        return out

    return Net(route, gate=torch.randn(5, 2), w=torch.randn(2, 5, 5)), vectors(8)


@trouble("A", "refused", "mixes|outputs|examples")
def similarities_of_all_pairs() -> Given:
    """Contrastive logits: as many outputs as examples."""

    class Contrast(Net):
        def forward(self, x: Tensor) -> Tensor:
            z = F.normalize(super().forward(x), dim=-1)
            return z @ z.t() / 0.1

    return Contrast(), vectors()


@trouble("A", "refused", "mixes")
def contrast_of_a_fixed_width() -> Given:
    return Net(lambda m, h: h + (h @ h.t()).softmax(-1) @ h * 0.1), vectors()


@trouble("A", "refused", "mixes")
def gradients_divided_by_the_examples() -> Given:
    class Mean(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, h: Tensor) -> Tensor:
            return h.clone()

        @staticmethod
        def backward(ctx: Any, *g: Tensor) -> Tensor:
            return g[0] / len(g[0])

    return Net(lambda m, h: Mean.apply(h)), vectors()


@trouble("A", "refused", "mixes")
def noise_of_a_seed_by_row() -> Given:
    def noise(m: Any, h: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(7)
        return h + torch.randn(h.shape, generator=generator, dtype=h.dtype)

    return Net(noise), vectors()


@trouble("A", "refused", "mixes")
def dropout_under_a_fixed_seed() -> Given:
    def drop(m: Any, h: Tensor) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            return F.dropout(h, 0.5)

    return Net(drop, zero_head=True), vectors()


@trouble("A", "refused", "mixes")
def noise_seeded_by_the_size() -> Given:
    def noise(m: Any, h: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(len(h))
        return h * torch.rand(5, generator=generator, dtype=h.dtype)

    return Net(noise), vectors()


# -- random

drawing("dropout_left_on", lambda m, h: F.dropout(h, 0.3))
drawing("dropout_below_a_zero_head", lambda m, h: F.dropout(h, 0.5), zero_head=True)
drawing("feature_dropout_behind_a_gate", lambda m, h: h + m.g * F.dropout(h), g=torch.zeros(5))
drawing("drop_path", lambda m, h: h + torch.tanh(h) * (torch.rand(len(h), 1) > 0.5))
drawing("drop_path_of_all", lambda m, h: h + torch.tanh(h) * (torch.rand(()) * 2))
drawing("masked_at_random", lambda m, h: h.masked_fill(torch.rand(h.shape) < 0.4, 0.0))
drawing(
    "noisy_weights",
    lambda m, h: h @ (m.w + m.s * torch.randn(5, 5)),
    w=torch.eye(5),
    s=torch.ones(()),
)
drawing("gumbel", lambda m, h: h * F.gumbel_softmax(h, hard=True))
drawing("reparametrised", lambda m, h: h + h.exp() * torch.randn_like(h), zero_head=True)
drawing("shuffled_features", lambda m, h: h[:, torch.randperm(5)])


@trouble("A", "refused", "random|mixes")
def carries_its_state() -> Given:
    """A recurrent state that outlives the call."""

    def carry(m: Any, h: Tensor) -> Tensor:
        m.state = 0.5 * getattr(m, "state", h.new_zeros(5)) + h.detach().mean(0)
        return h + m.state

    return Net(carry), vectors()


@trouble("A", "refused", "random|mixes")
def running_mean_updated_in_evaluation() -> Given:
    class Running(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(5))

        def forward(self, h: Tensor) -> Tensor:
            self.mean.mul_(0.9).add_(0.1 * h.detach().mean(0))
            return h - self.mean

    return Net(lambda m, h: m.n(h), n=Running()), vectors()


# -- what looks like mixing and is not


@trouble("A", "kernel")
def instance_norm_as_batch_norm_of_folded_examples() -> Given:
    def fold(m: Any, h: Tensor) -> Tensor:
        folded = h.transpose(1, 2).reshape(1, -1, h.shape[1])
        return F.batch_norm(folded, None, None, training=True).view(len(h), 5, -1).transpose(1, 2)

    return Net(fold), sequences()


@trouble("A", "kernel")
def statistics_of_the_batch_that_cancel() -> Given:
    return Net(lambda m, h: h + (h.mean(0) * 0).detach()), vectors()


@trouble("A", "kernel")
def random_numbers_that_are_not_used() -> Given:
    return Net(lambda m, h: h + 0 * torch.rand_like(h)), vectors()


@trouble("A", "kernel")
def gru_sequence_first_and_rightly_fed() -> Given:
    return Net(lambda m, h: m.rnn(h.transpose(0, 1))[0][-1], rnn=nn.GRU(5, 5)), sequences()


@trouble("A", "kernel")
def examples_in_the_second_dimension() -> Given:
    layer = nn.TransformerEncoderLayer(5, 1, 6)
    return Net(lambda m, h: m.e(h.transpose(0, 1)).transpose(0, 1), e=layer), sequences(3, 3)


@trouble("A", "either", "mixes")
def one_example_whose_batch_statistics_are_its_own() -> Given:
    return Net(lambda m, h: h - 0.5 * h.mean(0)), vectors(1)


@trouble("A", "either", "mixes")
def gradients_scaled_by_frequency() -> Given:
    table = nn.Embedding(10, 4, scale_grad_by_freq=True)
    return nn.Sequential(table, nn.Flatten(), nn.Linear(12, 2)).double(), ids()
