"""Kinds F and G: what is not finite, and what a batch holds beside tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ntk_propulsion.kernels.tunings import Parameters
from tests.kernels.troubles import D, Given, Net, ids, sequences, trouble, vectors

Middle = Callable[[Any, Tensor], Tensor]

# -- F


def endless(name: str, middle: Middle, at: int, value: float, **keywords: Any) -> None:
    """A model whose outputs or gradients are not finite on one example."""

    def build() -> Given:
        x = vectors()
        x[at] = value
        return Net(middle, **keywords), x

    trouble("F", "refused", "finite", name=name)(build)


endless("nan_in_the_last_example", lambda m, h: h, 5, float("nan"))
endless("infinite_example", lambda m, h: h * m.a.weight.sum().sign(), 3, float("inf"))
endless("overflow", lambda m, h: (h * m.c).exp(), 2, 1e3, c=torch.full((5,), 1e3))


@trouble("F", "refused", "finite")
def padding_alone() -> Given:
    class Masked(Net):
        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            h = self.a(x)
            w = h[..., 0].masked_fill(mask == 0, float("-inf")).softmax(-1)
            return self.b(torch.tanh((w[..., None] * h).sum(1)))

    mask = torch.ones(5, 3)
    mask[3] = 0
    return Masked(), {"x": sequences(5), "mask": mask}


@trouble("F", "refused", "finite")
def logarithm_of_nothing() -> Given:
    class Log(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * x[:, :1].abs().log()

    x = vectors()
    x[4, 0] = 0
    return Log(), x


@trouble("F", "refused", "finite")
def gradient_of_a_root_of_zero() -> Given:
    """Outputs are finite, example 4's gradient is not."""

    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 5, bias=False), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x).square().sum(-1, keepdim=True).sqrt() + x[:, :1])

    x = vectors()
    x[4] = 0
    net = Root().double()
    net.b = nn.Linear(1, 2).double()
    return net, x


@trouble("F", "refused", "finite")
def gradient_where_another_branch_is_chosen() -> Given:
    """Where() hides the branch, but not its gradient, 0 * inf."""

    def branch(m: Any, h: Tensor) -> Tensor:
        return torch.where(h > 0, (h.relu() * m.g).sqrt(), 0.1 * h)

    return Net(branch, g=torch.rand(5)), vectors()


@trouble("F", "refused", "finite")
def a_weight_that_is_nan() -> Given:
    net = Net(lambda m, h: h * m.g, g=torch.tensor([1.0, 1, float("nan"), 1, 1]))
    return net, vectors()


@trouble("F", "refused", "finite")
def only_one_output_of_one_example() -> Given:
    class Odd(Net):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return torch.stack([y[:, 0], y[:, 1] / (x[:, 0] != 7)], 1)

    x = vectors()
    x[5, 0] = 7
    return Odd(), x


@trouble("F", "kernel")
def nan_in_a_row_that_no_one_looks_up() -> Given:
    net = nn.Sequential(nn.Embedding(11, 4), nn.Flatten(), nn.Linear(12, 2)).double()
    net[0].weight.data[10] = float("nan")
    return net, ids()


@trouble("F", "kernel")
def nan_in_padding_that_is_filled() -> Given:
    class Filled(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.nan_to_num(0.0))

    x = sequences()
    x[2, 1:] = float("nan")
    return Filled(), x


@trouble("F", "kernel")
def parameters_that_are_nan_and_do_not_train() -> Given:
    return Net(lambda m, h: h, unused=torch.full((3,), float("nan"))), vectors()


# -- G


class Recurrent(nn.Module):
    """Reads as many steps as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.b = nn.GRU(4, 5, batch_first=True), nn.Linear(5, 2)
        self.double()

    def forward(self, x: Tensor, lengths: Any) -> Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.b(pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0].sum(1))


LENGTHS = [3, 1, 2, 3, 2]
LABELS = torch.tensor([0, 1, 1, 0, 1, 0])


@trouble("G", "either", together=True)
def list_of_lengths() -> Given:
    return Recurrent(), {"x": sequences(5), "lengths": list(LENGTHS)}


@trouble("G", "either", together=True)
def tuple_with_a_list_of_lengths() -> Given:
    return Recurrent(), (sequences(5), list(LENGTHS))


@trouble("G", "kernel")
def lengths_as_a_tensor() -> Given:
    return Recurrent(), {"x": sequences(5), "lengths": torch.tensor(LENGTHS)}


@trouble("G", "kernel")
def lengths_as_an_array() -> Given:
    """The engine makes arrays tensors; so does the truth."""
    return Recurrent(), {"x": sequences(5), "lengths": torch.tensor(np.array(LENGTHS))}


@trouble("G", "either", together=True)
def names_of_domains() -> Given:
    class Domains(Net):
        def forward(self, x: Tensor, domain: list[str]) -> Tensor:
            scale = [1.0 if name == "news" else 2.0 for name in domain]
            return super().forward(x * torch.tensor(scale, dtype=x.dtype)[:, None])

    names = ["news", "web", "web", "news", "web", "news"]
    return Domains(), {"x": vectors(), "domain": names}


@trouble("G", "either", together=True)
def pairs_of_numbers() -> Given:
    class Sized(Net):
        def forward(self, x: Tensor, sizes: list[tuple[int, int]]) -> Tensor:
            scale = torch.tensor(sizes, dtype=x.dtype).prod(1, keepdim=True)
            return super().forward(x * scale)

    return Sized(), {"x": vectors(), "sizes": [(1, 2), (2, 2), (1, 1), (3, 1), (1, 4), (2, 1)]}


@trouble("G", "kernel")
def ragged_tensors_in_a_list() -> Given:
    class Ragged(Net):
        def forward(self, parts: list[Tensor]) -> Tensor:
            return torch.cat([super(Ragged, self).forward(part[None]) for part in parts])

    return Ragged(), {"parts": [torch.randn(t, 4, dtype=D) for t in (2, 1, 3)]}


@trouble(
    "G",
    "either",
    together=True,
    outputs=lambda y: y[torch.arange(len(y)), LABELS[: len(y)]][:, None],
)
def outputs_that_close_over_labels() -> Given:
    return Net(), vectors()


@trouble("G", "either", together=True, outputs=lambda y: y.gather(1, LABELS[:, None]))
def outputs_that_gather_all_labels() -> Given:
    return Net(), vectors()


@trouble("G", "either", together=True, outputs=lambda y: y * torch.arange(1, 7)[: len(y), None])
def outputs_with_a_weight_for_each_place() -> Given:
    return Net(), vectors()


@trouble("G", "refused", "outputs", outputs=lambda y: y.mean(0, keepdim=True))
def outputs_of_the_batch_s_mean() -> Given:
    return Net(), vectors()


@trouble("G", "refused", "mixes|outputs", outputs=lambda y: y - y.mean(0))
def outputs_less_the_batch_s_mean() -> Given:
    return Net(), vectors()


@trouble("G", "either", together=True, tuning=Parameters(("a.*",)))
def one_number_for_all_that_looks_like_a_length() -> Given:
    class Repeated(Net):
        def forward(self, x: Tensor, steps: int, shape: tuple[int, ...]) -> Tensor:
            for _ in range(steps):
                x = x + torch.tanh(self.a(x))[:, :4].reshape(-1, *shape)
            return super().forward(x)

    return Repeated(), {"x": vectors(), "steps": 6, "shape": (4,)}


@trouble("G", "kernel")
def settings_beside_the_tensors() -> Given:
    class Set(Net):
        def forward(self, x: Tensor, scale: float, mode: str, nothing: None = None) -> Tensor:
            return super().forward(x * scale if mode == "on" else x)

    return Set(), {"x": vectors(), "scale": 0.5, "mode": "on", "nothing": None}
