"""Plain autograd: weighted sums over any groups, rows example by example, in real numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels.engine.plain import Plain, contracted, real
from ntk_propulsion.kernels.engine.side import Side
from ntk_propulsion.kernels.outputs import resolve_outputs
from ntk_propulsion.kernels.tunings import Full, Propulsion
from tests.architectures import ALL, build, tokens, vectors
from tests.kernels.oracle import gradients

N = 5
GROUPS = [[[0, 1, 2, 3, 4]], [[3, 0], [4, 2, 1]], [[4], [3], [2], [1], [0]]]


def plain(name: str, model: nn.Module | None = None, n: int = N) -> Plain:
    model = (build(name) if model is None else model).requires_grad_(True)
    bindings = {tuning.name: tuning.bind(model) for tuning in (Full(), Propulsion(3))}
    side = Side.of(model, bindings, ALL[name].batch(n), resolve_outputs("logits"))
    return side.plain(side.parameters)


def one_column(p: Tensor) -> Tensor:
    return torch.linspace(1, 2, p[0].numel(), dtype=torch.float64)


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("name", ["mlp", "bert"])
def test_sums_are_the_weighted_rows_whatever_the_groups(
    name: str, groups: list, directed: bool
) -> None:
    found = plain(name)
    rows = found.rows(list(found.leaves))
    c = torch.randn(N, rows["classifier.bias" if name == "bert" else "0.bias"].shape[0] // N)
    sums = found.sums(c.double(), groups, one_column, directed=directed)
    for leaf, J in rows.items():
        whole = (c.flatten().double() @ J).view(found.leaves[leaf].shape)
        expected = contracted(whole, one_column)
        torch.testing.assert_close(sums.gradients.get(leaf, torch.zeros_like(expected)), expected)


@pytest.mark.parametrize(("name", "batch"), [("mlp", vectors(3)), ("bert", tokens(3))])
def test_rows_are_those_of_the_jacobian(name: str, batch: object) -> None:
    found, model = plain(name, n=3), build(name)
    chosen = [leaf for leaf in found.leaves if leaf not in found.displacements][-3:]
    expected = gradients(model, batch, "logits", [model.get_parameter(n) for n in chosen])
    rows = torch.cat(list(found.rows(chosen).values()), 1)
    torch.testing.assert_close(rows, expected)


def test_values_come_back_in_the_batchs_order() -> None:
    found = plain("mlp")
    sums = found.sums(torch.zeros(N, 3).double(), [[3, 0], [4, 2, 1]], one_column)
    torch.testing.assert_close(sums.values, build("mlp")(vectors(N)).detach())


class Rooted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(6, 2).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.map(x).abs().log()


def test_an_example_without_finite_outputs_is_named() -> None:
    model = Rooted().requires_grad_(True)
    nn.init.zeros_(model.map.bias)
    x = vectors(4)
    x[2] = 0
    parameters = dict(model.named_parameters())
    found = Plain(model, x, 4, resolve_outputs("logits"), parameters, {})
    with pytest.raises(InputError, match="not finite on example 2"):
        found.sums(torch.ones(4, 2).double(), [[1, 3], [0, 2]], one_column)


def test_a_model_that_autograd_cannot_differentiate_is_said_so() -> None:
    class Written(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map = nn.Linear(6, 6).double()

        def forward(self, x: Tensor) -> Tensor:
            h = torch.tanh(self.map(x))
            y = h * h
            h += 1
            return y

    model = Written()
    found = Plain(
        model, vectors(2), 2, resolve_outputs("logits"), dict(model.named_parameters()), {}
    )
    with pytest.raises(InputError, match=r"autograd cannot differentiate.*inplace"):
        found.rows(["map.weight"])


def test_complex_and_sparse_gradients_are_real_and_dense() -> None:
    z = torch.randn(3, dtype=torch.cdouble)
    assert torch.equal(real(z.conj()), torch.stack([z.real, -z.imag], 1))
    s = torch.eye(3).to_sparse()
    assert torch.equal(real(s), torch.eye(3))
