"""The operator against the matrix, and its leading eigenvalues."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import eigsh
from torch import nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels import empirical_ntk, ntk_operator
from ntk_propulsion.kernels.outputs import Loss
from ntk_propulsion.kernels.tunings import Propulsion
from ntk_propulsion.propulsion import PropulsionConfig, wrap
from tests.architectures import ALL, PLAIN, build, vectors
from tests.kernels import oracle

NAMES = [*PLAIN, "bert", "mpnet", "deberta-v2", "gpt2-lm", "llama", "opt", "bart", "t5", "vit"]


def dense(operator) -> torch.Tensor:
    return torch.from_numpy(operator @ np.eye(operator.shape[0]))


@pytest.mark.parametrize("name", NAMES)
def test_operator_is_the_matrix(name: str) -> None:
    architecture, model = ALL[name], build(name)
    batch = architecture.batch(3)
    expected = oracle.kernel(model, batch, architecture.outputs)
    operator = ntk_operator(model, batch, outputs=architecture.outputs)
    v = np.random.default_rng(0).normal(size=len(expected))
    found = torch.from_numpy(operator @ v)
    assert oracle.relative(found, expected @ torch.from_numpy(v)) < 10 * oracle.tolerance(name)


@pytest.mark.parametrize("chunk", [1, 2, 4])
@pytest.mark.parametrize("tuning", ["bitfit", "layernorm", "head", "bitfit+head"])
def test_tunings_of_whole_parameters_and_chunks(tuning: str, chunk: int) -> None:
    model, batch = build("bert"), ALL["bert"].batch(4)
    expected = empirical_ntk(model, batch, [tuning])[tuning].matrix
    assert oracle.relative(dense(ntk_operator(model, batch, tuning, chunk=chunk)), expected) < 1e-10


def test_wrapped_model_and_outputs_that_read_the_batch() -> None:
    model = wrap(build("bert"), PropulsionConfig(degree=3))
    batch, loss = ALL["bert"].batch(4), Loss([0, 1, 1, 0])
    expected = empirical_ntk(model, batch, [Propulsion()], loss)["propulsion"].matrix
    operator = ntk_operator(model, batch, Propulsion(), loss)
    assert oracle.relative(dense(operator), expected) < 1e-10


def test_leading_eigenvalues_are_the_matrix_s() -> None:
    model, batch = build("roberta"), ALL["roberta"].batch(6)
    operator = ntk_operator(model, batch)
    found = eigsh(operator, 3, return_eigenvectors=False)
    expected = torch.linalg.eigvalsh(empirical_ntk(model, batch)["full"].matrix)[-3:]
    np.testing.assert_allclose(np.sort(found), expected, rtol=1e-9)


def test_single_precision_by_default_and_double_on_request() -> None:
    model, batch = build("mlp"), vectors(4)
    exact = oracle.kernel(model, batch)
    model.float()
    single, double = ntk_operator(model, batch), ntk_operator(model, batch, dtype=torch.float64)
    assert single.dtype == np.float32
    assert double.dtype == np.float64
    assert oracle.relative(dense(single).double(), exact) < 1e-5
    assert oracle.relative(dense(double), exact) < 1e-6
    assert next(model.parameters()).dtype == torch.float32


def test_model_comes_back_as_it_was() -> None:
    model = build("dropout").train()
    model[0].requires_grad_(False)
    values = copy.deepcopy(model.state_dict())
    dense(ntk_operator(model, vectors(3)))
    assert model.training
    assert [p.requires_grad for p in model.parameters()] == [False, False, True, True]
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(v, values[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"tuning": "propulsion"}, "whole parameters.*propulsion"),
        ({"tuning": "random_subset"}, "whole parameters.*random_subset"),
        ({"tuning": "layernorm"}, "no parameters"),
        ({"outputs": "logit"}, "did you mean logits"),
        ({"chunk": 0}, "at least one example"),
    ],
)
def test_bad_input_is_named(keywords: dict, message: str) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    with pytest.raises(InputError, match=message):
        ntk_operator(model, vectors(3), **keywords)


class Once(torch.autograd.Function):
    """A function whose backward cannot be differentiated."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return gradient


class FirstOrder(nn.Linear):
    def forward(self, x):
        return super().forward(x) + Once.apply(super().forward(x))


def test_model_without_second_derivatives_is_refused_and_comes_back() -> None:
    model = FirstOrder(6, 2).double().train()
    model.bias.requires_grad_(False)
    with pytest.raises(InputError, match=r"FirstOrder.*differentiated again"):
        ntk_operator(model, vectors(3))
    assert model.training
    assert not model.bias.requires_grad
