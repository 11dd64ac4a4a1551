"""The linearized model against reference Jacobians."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels import Options, linearized_outputs, model_outputs
from ntk_propulsion.kernels.outputs import Loss, evaluate_outputs, resolve_outputs
from ntk_propulsion.kernels.reference import reference_jacobian
from ntk_propulsion.propulsion import PropulsionConfig, wrap
from tests.architectures import ALL, build, vectors
from tests.kernels import oracle
from tests.kernels.test_cross_model import gains, move
from tests.kernels.test_operator import FirstOrder, Spectral, gated

NAMES = [
    *("mlp", "module-reuse", "shared-tensor", "functional", "own-parameters", "cnn", "attention"),
    *("bert", "mpnet", "deberta-v2", "gpt2-lm", "llama", "opt", "bart", "t5", "vit"),
]


def plain_outputs(model: nn.Module, batch: object, outputs: object) -> Tensor:
    output = model(**batch) if isinstance(batch, dict) else model(batch)
    n = len(next(iter(batch.values())) if isinstance(batch, dict) else batch)
    return evaluate_outputs(resolve_outputs(outputs), output, n, batch).detach()


@pytest.mark.parametrize("name", NAMES)
def test_linearized_outputs_are_f0_and_the_jacobian_times_the_displacement(name: str) -> None:
    architecture, model = ALL[name], build(name)
    other, batch = move(model, 0.3), architecture.batch(3)
    found = linearized_outputs(model, other, batch, architecture.outputs, options=Options(chunk=2))
    parameters = list(model.parameters())
    jacobian = oracle.gradients(model, batch, architecture.outputs, parameters)
    pairs = zip(other.parameters(), parameters, strict=True)
    delta = torch.cat([(a - b).detach().flatten() for a, b in pairs])
    f_0 = plain_outputs(model, batch, architecture.outputs)
    change = (jacobian @ delta).view_as(f_0)
    assert oracle.relative(found - f_0, change) < 10 * oracle.tolerance(name)


@pytest.mark.parametrize("name", ["mlp", "own-parameters"])
def test_linearized_outputs_agree_with_the_torch_func_reference(name: str) -> None:
    model, batch = build(name), vectors(4)
    other = move(model)
    jacobian, moved = reference_jacobian(model, batch), dict(other.named_parameters())
    change = sum(
        jacobian[n] @ (moved[n] - p).detach().flatten() for n, p in model.named_parameters()
    )
    f_0 = plain_outputs(model, batch, "logits")
    found = linearized_outputs(model, other, batch)
    assert oracle.relative(found, f_0 + change.view_as(f_0)) < 1e-13


@given(
    st.integers(1, 6), st.integers(1, 4), st.integers(0, 10**6), st.sampled_from([1e-6, 1.0, 1e3])
)
@hypothesis_settings(max_examples=20)
def test_models_linear_in_their_parameters_are_their_linearization(
    d_in: int, d_out: int, seed: int, size: float
) -> None:
    torch.manual_seed(seed)
    model = nn.Linear(d_in, d_out).double()
    other, batch = move(model, size, seed), torch.randn(5, d_in).double()
    truth = other(batch).detach()
    assert oracle.relative(linearized_outputs(model, other, batch), truth) < 1e-13


def test_propulsion_of_degree_one_on_the_last_layer_is_linear() -> None:
    model = wrap(build("mlp"), PropulsionConfig(1, positions=("3",)))
    other = copy.deepcopy(model)
    with torch.no_grad():
        gains(other)[0].mul_(torch.tensor([-3.0, 0.0, 7.0]))
    found = linearized_outputs(model, other, vectors(4))
    assert oracle.relative(found, other(vectors(4)).detach()) < 1e-13


def test_the_error_is_of_second_order_in_the_displacement() -> None:
    model, batch = build("bert"), ALL["bert"].batch(3)
    other = dict(move(model, 0.01).named_parameters())
    errors = []
    for share in (1.0, 0.5, 0.25):
        near = copy.deepcopy(model)
        with torch.no_grad():
            for name, p in near.named_parameters():
                p.add_(share * (other[name] - p))
        error = model_outputs(near, batch) - linearized_outputs(model, near, batch)
        errors.append(float(error.norm()))
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.2)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.1)


def test_values_by_name_stand_for_a_model_in_which_only_they_moved() -> None:
    model, batch = build("bert"), ALL["bert"].batch(3)
    other, far = copy.deepcopy(model), dict(move(model).named_parameters())
    names = ["classifier.weight", "bert.encoder.layer.0.output.dense.bias"]
    with torch.no_grad():
        for name in names:
            other.get_parameter(name).copy_(far[name])
    by_name = linearized_outputs(model, {name: far[name] for name in names}, batch)
    assert torch.equal(by_name, linearized_outputs(model, other, batch))
    assert torch.equal(linearized_outputs(model, {}, batch), model_outputs(model, batch))


@pytest.mark.parametrize("chunk", [1, 2, 5, 8])
def test_examples_a_few_at_a_time_change_nothing(chunk: int) -> None:
    model, batch = build("bert"), ALL["bert"].batch(5)
    other, loss = move(model), Loss([0, 1, 1, 0, 1])
    at_once = linearized_outputs(model, other, batch, loss, options=Options(chunk=5))
    assert at_once.shape == (5, 1)
    found = linearized_outputs(model, other, batch, loss, options=Options(chunk=chunk))
    assert oracle.relative(found, at_once) < 1e-12


@pytest.mark.parametrize("name", ["mlp", "bert"])
def test_single_precision_by_default_and_double_on_request(name: str) -> None:
    model, batch = build(name), ALL[name].batch(3)
    other = move(model, 0.01)
    exact = linearized_outputs(model, other, batch)
    model.float(), other.float()
    single = linearized_outputs(model, other, batch)
    double = linearized_outputs(model, other, batch, options=Options(dtype=torch.float64))
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    assert oracle.relative(single.double(), exact) < 1e-5
    assert oracle.relative(double, exact) < 1e-6  # parameters were rounded once


def test_the_model_comes_back_as_it_was() -> None:
    model = build("dropout").train()
    model[0].requires_grad_(False)
    other, values = move(model), copy.deepcopy(model.state_dict())
    first = linearized_outputs(model, other, vectors(3))
    assert torch.equal(first, linearized_outputs(model, other, vectors(3)))  # no dropout
    assert model.training
    assert [p.requires_grad for p in model.parameters()] == [False, False, True, True]
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(v, values[k]) for k, v in model.state_dict().items())
    assert not first.requires_grad


@pytest.mark.parametrize(
    ("displaced", "keywords", "message"),
    [
        ({"0.wieght": torch.zeros(8, 6)}, {}, r"did you mean 0\.weight"),
        ({"0.weight": torch.zeros(6, 8)}, {}, r"'0\.weight' has shape \(8, 6\).*\(6, 8\)"),
        (nn.Sequential(nn.Linear(6, 8)), {}, r"no parameter '2\.bias'"),
        ({}, {"outputs": "logit"}, "did you mean logits"),
    ],
)
def test_bad_input_is_named(displaced: object, keywords: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        linearized_outputs(build("mlp"), displaced, vectors(3), **keywords)


def test_a_model_without_second_derivatives_is_refused() -> None:
    model = FirstOrder(6, 2).double()
    with pytest.raises(InputError, match="differentiated again"):
        linearized_outputs(model, move(model), vectors(3))


def test_complex_parameters_and_closures_in_another_dtype() -> None:
    x = vectors(3).float()
    for model in (Spectral(), gated()):
        far = {n: (p + 0.1).detach() for n, p in model.named_parameters()}
        single = linearized_outputs(model, far, x)
        double = linearized_outputs(model, far, x, options=Options(dtype=torch.float64))
        assert oracle.relative(double.float(), single) < 1e-4
        near = {n: (p + 1e-4 * (far[n] - p)).detach() for n, p in model.named_parameters()}
        slope = linearized_outputs(model, near, x, options=Options(dtype=torch.float64))
        f_0 = model_outputs(model, x, options=Options(dtype=torch.float64))
        assert oracle.relative((slope - f_0) / 1e-4, double - f_0) < 1e-2


def test_values_are_those_of_a_model_that_no_pass_has_written() -> None:
    class Counting(nn.Linear):
        count = 0

        def forward(self, x):
            self.count = self.count + 1
            return super().forward(x) * self.count

    model = Counting(6, 2).double()
    values = model_outputs(model, vectors(4), options=Options(chunk=1))
    assert oracle.relative(values, nn.Linear.forward(model, vectors(4)).detach()) < 1e-13
    assert "count" not in vars(model)


def test_chunk_and_dtype_may_be_given_beside_or_in_options() -> None:
    model, x = build("mlp").float(), vectors(5).float()
    moved = {"0.bias": model[0].bias.detach() + 1}
    apart = linearized_outputs(model, moved, x, chunk=2, dtype="float64")
    options = Options(chunk=2, dtype="float64")
    assert torch.equal(apart, linearized_outputs(model, moved, x, options=options))
    with pytest.raises(InputError, match="options= holds"):
        linearized_outputs(model, moved, x, chunk=2, options=options)
