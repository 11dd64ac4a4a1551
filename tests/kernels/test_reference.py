"""The oracle of the oracles: formulas of a network that one can differentiate by hand."""

from __future__ import annotations

import torch
from torch import nn

from ntk_propulsion.kernels.reference import reference_jacobian, reference_ntk
from tests.architectures import vectors


def test_jacobian_of_a_linear_layer_is_its_input() -> None:
    model, x = nn.Linear(6, 2).double(), vectors(3)
    found = reference_jacobian(model, x)
    eye = torch.eye(2, dtype=torch.float64)
    expected = torch.einsum("op,ni->nopi", eye, x).reshape(6, 12)
    torch.testing.assert_close(found["weight"], expected)
    torch.testing.assert_close(found["bias"], eye.repeat(3, 1))


def test_kernel_of_a_linear_layer_is_the_inputs_gram_plus_one() -> None:
    model, x, other = nn.Linear(6, 2).double(), vectors(3), vectors(4)
    eye = torch.eye(2, dtype=torch.float64)
    for columns, given in ((x, None), (other, other)):
        expected = torch.kron(x @ columns.T + 1, eye)
        torch.testing.assert_close(reference_ntk(model, x, other=given), expected)
    without_bias = reference_ntk(model, x, parameters=["weight"])
    torch.testing.assert_close(without_bias, torch.kron(x @ x.T, eye))


def test_kernel_of_one_hidden_layer_is_the_sum_of_both_layers() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 1)).double(), vectors(3)
    hidden = torch.tanh(model[0](x))
    d = (1 - hidden**2) * model[2].weight
    expected = (d @ d.T) * (x @ x.T + 1) + hidden @ hidden.T + 1
    torch.testing.assert_close(reference_ntk(model, x), expected.detach())
