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


# -- models that write, close over their parameters, or hold other numbers


class Spectral(nn.Module):
    """A filter of complex weights between two layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 2)
        self.w = nn.Parameter(torch.randn(4, dtype=torch.complex64))

    def forward(self, x):
        return self.b(torch.tanh(torch.fft.irfft(torch.fft.rfft(self.a(x)) * self.w, n=6)))


def gated() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))
    model.gate = nn.Parameter(torch.rand(5))
    model[0].register_forward_hook(lambda module, args, out: out * model.gate)
    return model


def old_weight_norm() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(torch.nn.utils.weight_norm(nn.Linear(6, 4)), nn.Tanh(), nn.Linear(4, 2))


def real_kernel(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    parameters, rows = list(model.parameters()), []
    for example in x.split(1):
        for value in model(example)[0]:
            found = torch.autograd.grad(value, parameters, retain_graph=True)
            parts = [torch.view_as_real(g) if g.is_complex() else g for g in found]
            rows.append(torch.cat([g.flatten() for g in parts]))
    return torch.stack(rows) @ torch.stack(rows).T


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("make", [Spectral, gated, old_weight_norm])
@pytest.mark.filterwarnings("ignore")
def test_the_operator_is_of_the_model_itself_in_any_dtype(make, dtype: torch.dtype) -> None:
    model, x = make(), vectors(4).float()
    expected = real_kernel(model, x)
    found = dense(ntk_operator(model, x, dtype=dtype))
    assert oracle.relative(found.float(), expected) < 1e-5
    assert {p.dtype for p in model.parameters()} <= {torch.float32, torch.complex64}


def test_each_product_is_at_the_parameters_of_that_moment() -> None:
    model, x = gated(), vectors(4).float()
    operator = ntk_operator(model, x, dtype=torch.float64)
    before = dense(operator)
    with torch.no_grad():
        model.gate.mul_(2)
    assert oracle.relative(dense(operator), before) > 0.1
    assert oracle.relative(dense(operator).float(), real_kernel(model, x)) < 1e-5


def test_passes_of_an_operator_do_not_see_each_other() -> None:
    embedding = nn.Embedding(9, 4, max_norm=0.5)
    model = nn.Sequential(embedding, nn.Flatten(), nn.Linear(12, 2)).double()
    ids, before = torch.arange(12).view(4, 3) % 9, embedding.weight.detach().clone()
    small = copy.deepcopy(model)
    small[0].max_norm = None
    with torch.no_grad():
        norms = before.norm(dim=1, keepdim=True)
        small[0].weight.copy_(torch.where(norms > 0.5, before * 0.5 / (norms + 1e-7), before))
    found = dense(ntk_operator(model, ids))
    assert oracle.relative(found, real_kernel(small, ids)) < 1e-10
    assert torch.equal(embedding.weight, before)


def test_outputs_that_no_parameter_reaches_have_a_kernel_of_zeros() -> None:
    class Constant(nn.Linear):
        def forward(self, x):
            return super().forward(x).detach()

    assert not dense(ntk_operator(Constant(6, 2).double(), vectors(3))).any()


@pytest.mark.parametrize("deep", [False, True])
def test_sparse_gradients_are_those_of_dense_ones(deep: bool) -> None:
    layers = [nn.Embedding(9, 2, sparse=True), nn.Flatten(), nn.Linear(4, 2), nn.Tanh()]
    model, ids = nn.Sequential(*layers[: 4 if deep else 2]), torch.arange(6).view(3, 2)
    found = dense(ntk_operator(model, ids))
    model[0].sparse = False
    assert oracle.relative(found, real_kernel(model, ids)) < 1e-5


def test_formats_that_scipy_lacks_are_refused() -> None:
    model = nn.Sequential(nn.Embedding(9, 2), nn.Flatten())
    with pytest.raises(InputError, match="bfloat16"):
        ntk_operator(model, torch.arange(6).view(3, 2), dtype="bfloat16")


def test_calls_under_inference_mode_are_like_others() -> None:
    model = gated()
    with torch.inference_mode():
        x = vectors(3).float()
        operator = ntk_operator(model, x)
        found = dense(operator)
    assert oracle.relative(found, real_kernel(model, x.clone())) < 1e-5
