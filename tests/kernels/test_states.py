"""Kernels of models that write while they run, in any dtype and mode: exact, and given back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels import empirical_ntk
from tests.kernels.oracle import relative


def by_hand(call: Callable[[int], Tensor], n: int, parameters: list[Tensor]) -> Tensor:
    """The kernel row by row; ``call(i)`` is the model's output on example i alone."""
    rows = []
    for i in range(n):
        for value in call(i)[0]:
            found = torch.autograd.grad(value, parameters, retain_graph=True)
            rows.append(torch.cat([g.flatten() for g in found]))
    jacobian = torch.stack(rows)
    return jacobian @ jacobian.T


def kernel(model: nn.Module, data: Any, **keywords: Any) -> Tensor:
    return empirical_ntk(model, data, "full", **keywords)["full"].matrix


class Counting(nn.Module):
    """Counts its calls in a buffer, keeps its last output, and lets neither matter after one."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)
        self.register_buffer("calls", torch.zeros(()))
        self.last: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls = self.calls + 1
        h = torch.tanh(self.a(x)) * self.calls
        self.last.append(h)
        return self.b(h + len(self.last))


class Normalising(nn.Module):
    """Keeps its weight on a sphere, written past autograd's notice in each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        self.a.weight.data = self.a.weight.data / self.a.weight.data.norm(dim=1, keepdim=True)
        return self.b(torch.tanh(self.a(x)))


def gated() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    model.gate = nn.Parameter(torch.rand(5))
    model[0].register_forward_hook(lambda module, args, out: out * model.gate)
    return model


def weight_normalised() -> nn.Module:
    return nn.Sequential(torch.nn.utils.weight_norm(nn.Linear(3, 4)), nn.Tanh(), nn.Linear(4, 2))


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def alone(model: nn.Module, x: Tensor) -> Callable[[int], Tensor]:
    """The model on one example, each time from where it stands."""
    before = state(model)

    def call(i: int) -> Tensor:
        model.load_state_dict(before)
        if hasattr(model, "last"):
            model.last = []
        return model(x[i : i + 1])

    return call


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("make", [Counting, Normalising, gated, weight_normalised])
def test_the_kernel_is_that_of_the_model_as_it_came(make, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model, x = make(), torch.randn(5, 3)
    before = state(model)
    found = kernel(model, x, dtype=dtype)
    assert found.dtype == dtype
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not getattr(model, "last", [])
    expected = by_hand(alone(model, x), 5, list(model.parameters()))
    assert relative(found.float(), expected) < 1e-5


def test_an_embedding_with_a_largest_norm_has_the_kernel_of_its_scaled_weights() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Embedding(10, 4, max_norm=0.5), nn.Flatten(), nn.Linear(12, 2)
    ).double()
    ids, before = torch.randint(0, 10, (5, 3)), state(model)
    found = kernel(model, ids)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model(torch.arange(10).repeat(3).view(10, 3))  # scales all rows
    expected = by_hand(lambda i: model(ids[i : i + 1]), 5, list(model.parameters()))
    assert relative(found, expected) < 1e-10


def test_a_layer_that_is_initialised_by_its_first_batch_mixes_examples() -> None:
    class ActNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift, self.a = nn.Parameter(torch.zeros(3)), nn.Linear(3, 2)
            self.register_buffer("ready", torch.tensor(False))

        def forward(self, x: Tensor) -> Tensor:
            if not self.ready:
                self.shift.data.copy_(-x.mean(0))
                self.ready.fill_(True)
            return self.a(torch.tanh(x + self.shift))

    model, x = ActNorm().double(), torch.randn(5, 3).double()
    before = state(model)
    with pytest.raises(InputError, match="mixes"):
        kernel(model, x)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model(x)
    expected = by_hand(lambda i: model(x[i : i + 1]), 5, list(model.parameters()))
    assert relative(kernel(model, x), expected) < 1e-10


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("made_inside", [False, True])
def test_calls_where_gradients_are_off(mode: type, made_inside: bool) -> None:
    torch.manual_seed(0)
    model, x = Counting().double(), torch.randn(4, 3).double()
    expected = kernel(model, x)
    with mode():
        batch = x.clone() if made_inside else x
        assert torch.equal(kernel(model, batch), expected)
        assert torch.equal(kernel(model, {"x": batch}), expected)
    assert torch.equal(kernel(model, batch), expected)


def test_a_model_that_was_run_under_inference_mode_and_kept_its_tables() -> None:
    class Cached(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if not hasattr(self, "table"):
                self.table = torch.linspace(1, 2, 3, dtype=x.dtype)
            return super().forward(x * self.table)

    model, x = Cached(3, 2).double(), torch.randn(4, 3).double()
    expected = kernel(model, x)
    with torch.inference_mode():
        model(x)
    assert torch.equal(kernel(model, x), expected)


def test_what_a_model_writes_into_its_input_stays_there() -> None:
    class Doubling(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.mul_(2).add_(1))

    model, x = Doubling(3, 2).double(), torch.randn(4, 3).double()
    before = x.clone()
    found = kernel(model, x)
    assert torch.equal(x, before)
    expected = by_hand(lambda i: model(x[i : i + 1].clone()), 4, list(model.parameters()))
    assert relative(found, expected) < 1e-10


# -- what is per example and no tensor


class Padded(nn.Module):
    """A mean over tokens, told the lengths by a list of numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor, lengths: list[int]) -> Tensor:
        assert len(x) == len(lengths)
        long = torch.tensor(lengths)[:, None]
        inside = (torch.arange(x.shape[1]) < long).to(x.dtype)
        return self.b((torch.tanh(self.a(x)) * inside[:, :, None]).sum(1) / long)


class Means(nn.Module):
    """Takes a list of tensors of unequal length."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, rows: list[Tensor]) -> Tensor:
        return self.b(torch.stack([torch.tanh(self.a(row)).mean(0) for row in rows]))


class Spoken(nn.Module):
    """Reads texts."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(30, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor, texts: list[str | None], size: tuple[int, int]) -> Tensor:
        means = [self.table(torch.tensor([ord(c) % 30 for c in t or "?"])).mean(0) for t in texts]
        return self.head(torch.tanh(torch.stack(means) + x)) * size[0]


X = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0)).double()
PER_EXAMPLE: dict[str, tuple[type[nn.Module], Any, Callable[[Any, int], Any]]] = {
    "lengths": (Padded, (X, [5, 2, 3, 1]), lambda m, i: m(X[i : i + 1], [[5, 2, 3, 1][i]])),
    "texts": (
        Spoken,
        {"x": X[:, 0, :1], "texts": ["ab", None, "c", "abc"], "size": (2, 3)},
        lambda m, i: m(X[i : i + 1, 0, :1], [["ab", None, "c", "abc"][i]], (2, 3)),
    ),
    "tensors": (
        Means,
        [X[0], X[1, :2], X[2, :1], X[3, :4]],
        lambda m, i: m([[X[0], X[1, :2], X[2, :1], X[3, :4]][i]]),
    ),
}


@pytest.mark.parametrize("name", PER_EXAMPLE)
def test_lists_are_taken_by_example(name: str) -> None:
    make, data, call = PER_EXAMPLE[name]
    torch.manual_seed(0)
    model = make().double()
    expected = by_hand(lambda i: call(model, i), 4, list(model.parameters()))
    assert relative(kernel(model, data), expected) < 1e-10


def test_two_models_that_share_a_part_are_converted_and_given_back() -> None:
    torch.manual_seed(0)
    base, x = nn.Linear(3, 4), torch.randn(4, 3)
    models = [nn.Sequential(base, nn.Tanh(), nn.Linear(4, 2)) for _ in range(2)]
    before = [state(model) for model in models]
    pointers = [p.data_ptr() for model in models for p in model.parameters()]
    found = kernel(models[0], x, other_model=models[1], dtype=torch.float64)
    single = kernel(models[0], x, other_model=models[1])
    assert relative(single.double(), found) < 1e-5
    assert pointers == [p.data_ptr() for model in models for p in model.parameters()]
    for model, values in zip(models, before, strict=True):
        assert all(torch.equal(value, values[name]) for name, value in model.state_dict().items())
        assert {p.dtype for p in model.parameters()} == {torch.float32}
