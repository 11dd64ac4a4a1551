"""Each forward pass starts from the model as it came, in any dtype, and so it comes back."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.engine.unchanged import same_bits, unchanged
from ntk_propulsion.models.reach import reach

DTYPES = [torch.float32, torch.float64, torch.bfloat16]


class Writer(nn.Module):
    """Writes something in each forward pass."""

    def __init__(self, write: Callable[[Any, Tensor], None]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3))
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("done", torch.tensor(False))
        self.state, self.last, self.cache = SimpleNamespace(h=None), None, []
        self.table = torch.ones(3)
        self.write = write

    def forward(self, x: Tensor) -> Tensor:
        self.write(self, x)
        return x * self.weight * self.table + self.count


def initialise(model: Any, x: Tensor) -> None:
    """ActNorm: parameters from the first batch, past autograd's notice."""
    if not model.done:
        model.weight.data.copy_(1 / x.std(0, correction=0).clamp_min(1e-3))
        model.done.fill_(True)


def renormalise(model: Any, x: Tensor) -> None:
    with torch.no_grad():
        model.weight.mul_(0.5)


def count_in_place(model: Any, x: Tensor) -> None:
    model.count += 1


def count_by_assignment(model: Any, x: Tensor) -> None:
    model.count = model.count + 1


def replace_data(model: Any, x: Tensor) -> None:
    model.weight.data = model.weight.data * 2


def replace_parameter(model: Any, x: Tensor) -> None:
    model.weight = nn.Parameter(model.weight.detach() * 2)


def by_numpy(model: Any, x: Tensor) -> None:
    if model.weight.dtype != torch.bfloat16:
        model.weight.detach().numpy()[0] += 1


def keep_outputs(model: Any, x: Tensor) -> None:
    model.last = x * model.weight
    model.cache.append(model.last)
    model.state.h = model.last if model.state.h is None else model.state.h + model.last
    model.table = model.table + (1 if len(model.cache) > 1 else 0)


def write_table(model: Any, x: Tensor) -> None:
    model.table.mul_(2)


def add_names(model: Any, x: Tensor) -> None:
    if not hasattr(model, "extra"):
        model.extra = x[0].detach()
        model.register_buffer("seen", x[0].detach())
        model.add_module("more", nn.Linear(2, 2))
    model.table = model.table * model.extra


def freeze(model: Any, x: Tensor) -> None:
    model.weight.requires_grad_(not model.weight.requires_grad)


def hook(model: Any, x: Tensor) -> None:
    model.register_forward_hook(lambda module, args, out: None)


WRITES = [
    initialise,
    renormalise,
    count_in_place,
    count_by_assignment,
    replace_data,
    replace_parameter,
    by_numpy,
    keep_outputs,
    write_table,
    add_names,
    freeze,
    hook,
]


def photograph(model: nn.Module) -> tuple:
    found = reach(model)
    tensors = {
        key: (name, tensor.dtype, tensor.data_ptr(), tensor.requires_grad, tensor.detach().clone())
        for key, (name, tensor) in found.tensors.items()
    }
    attributes = [{k: id(v) for k, v in vars(m).items()} for m in model.modules()]
    names = [
        list(d.keys()) for m in model.modules() for d in (m._parameters, m._buffers, m._modules)
    ]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    return tensors, (attributes, names, hooks)


def check_same(before: tuple, after: tuple) -> None:
    assert before[1] == after[1]
    assert before[0].keys() == after[0].keys()
    for key, (*known, values) in before[0].items():
        assert known == list(after[0][key][:-1])
        assert torch.equal(values, after[0][key][-1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("write", WRITES)
def test_passes_do_not_see_each_other_and_the_model_comes_back(write, dtype) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Writer(write), nn.Linear(3, 2))
    before = photograph(model)
    batches = [torch.randn(n, 3, dtype=dtype) for n in (1, 2, 5, 5, 5, 5, 5, 5)]
    with unchanged(model, dtype):
        assert {p.dtype for p in model.parameters()} == {dtype}
        first = [model(x).detach() for x in batches]
        again = [model(x).detach() for x in reversed(batches)][::-1]
    check_same(before, photograph(model))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("write", WRITES)
def test_nothing_is_restored_between_a_forward_pass_and_its_backward(write) -> None:
    model, x = Writer(write), torch.randn(4, 3)
    with unchanged(model, torch.float32):
        out = model(x)
        if out.requires_grad:
            leaf = model.weight
            if leaf.requires_grad and write is not replace_parameter:
                (found,) = torch.autograd.grad(out.sum(), leaf)
                assert found.shape == leaf.shape


def test_a_pass_inside_the_pass_is_part_of_it() -> None:
    class Twice(Writer):
        def forward(self, x: Tensor, inner: bool = False) -> Tensor:
            if inner:
                return self.count
            self.count += 1
            return self(x, inner=True) * x

    model = Twice(renormalise)
    with unchanged(model, torch.float32):
        assert torch.equal(model(torch.ones(2, 3)), torch.ones(2, 3))
        assert torch.equal(model(torch.ones(2, 3)), torch.ones(2, 3))


def test_functional_calls_keep_their_own_parameters() -> None:
    model, x = nn.Linear(3, 2), torch.randn(4, 3)
    with unchanged(model, torch.float64):
        values = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
        model(x.double())
        assert not functional_call(model, values, x.double()).any()

        def one(v, example):
            return functional_call(model, v, example)

        found = vmap(jacrev(one), (None, 0))(values, x.double())["weight"]
        assert torch.equal(found[:, 0, 0], x.double())


def test_a_write_unseen_that_comes_late_is_refused() -> None:
    def late(model: Any, x: Tensor) -> None:
        if len(x) == 7:
            model.weight.data.mul_(2)

    model = Writer(late)
    before = photograph(model)

    def run(sizes: list[int]) -> None:
        for n in sizes:
            model(torch.randn(n, 3))

    with (
        pytest.raises(
            InputError, match="'weight' is written in some forward passes and not in oth"
        ),
        unchanged(model, torch.float32),
    ):
        run([1, 2, 5, 5, 5, 7, 5])
    check_same(before, photograph(model))


def test_bits_tell_zeros_apart_and_nan_from_nothing() -> None:
    nan = torch.tensor([float("nan"), 1.0])
    assert same_bits(nan, nan.clone())
    assert not same_bits(torch.zeros(2), -torch.zeros(2))
    for dtype in (torch.bool, torch.int64, torch.bfloat16, torch.complex128):
        assert same_bits(torch.ones(2, 2).to(dtype), torch.ones(2, 2).to(dtype).T)
