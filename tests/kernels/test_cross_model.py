"""Kernels between two models of one architecture, against autograd at both."""

from __future__ import annotations

import copy
import json
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from ntk_propulsion import Kernel, empirical_ntk, load_kernels, plan_ntk, save_kernels
from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels import Plan, model_fingerprint
from ntk_propulsion.kernels.engine import job
from ntk_propulsion.kernels.tunings import (
    IA3,
    BitFit,
    LoRA,
    Propulsion,
    RandomSubset,
    Trainable,
)
from ntk_propulsion.propulsion import PropulsionConfig, scalings, wrap
from ntk_propulsion.theory.distances import compare_kernels
from tests.architectures import ALL, build, mlp, vectors
from tests.kernels import oracle
from tests.kernels.test_ntk import Fooling

NAMES = [
    *("mlp", "module-reuse", "shared-tensor", "functional", "own-parameters", "cnn"),
    *("bert", "mpnet", "deberta-v2", "gpt2-lm", "llama", "t5", "vit"),
]


def move(model: nn.Module, size: float = 0.1, seed: int = 1) -> nn.Module:
    """The same architecture, every parameter a random step away; buffers alike."""
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(size * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return other


def expected(name: str, models: tuple[nn.Module, nn.Module], chosen: Any, *sizes: int) -> Any:
    """Product of autograd's Jacobians by the chosen parameters, the second at the second model."""
    architecture = ALL[name]
    left, right = (
        oracle.gradients(model, architecture.batch(n), architecture.outputs, chosen(model))
        for model, n in zip(models, sizes, strict=True)
    )
    return left @ right.T


def everything(model: nn.Module) -> list[nn.Parameter]:
    return list(model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_cross_model_kernel_is_that_of_autograd_at_both_models(name: str) -> None:
    architecture, model = ALL[name], build(name)
    other = move(model)
    found = empirical_ntk(
        model, architecture.batch(4), ["full"], architecture.outputs, other_model=other
    )
    truth = expected(name, (model, other), everything, 4, 4)
    assert oracle.relative(found["full"].matrix, truth) < oracle.tolerance(name)
    assert oracle.relative(truth, truth.T) > 1e-4  # nothing may be mirrored
    assert not found.exact_fallback


@pytest.mark.parametrize("name", ["mlp", "bert", "gpt2", "opt"])
def test_another_batch_may_go_with_the_other_model(name: str) -> None:
    architecture, model = ALL[name], build(name)
    other = move(model)
    keywords = {"other": architecture.batch(5), "other_model": other, "per_module": True}
    found = empirical_ntk(model, architecture.batch(3), ["full", "bitfit"], **keywords)
    truth = expected(name, (model, other), everything, 3, 5)
    assert oracle.relative(found["full"].matrix, truth) < oracle.tolerance(name)
    parts = torch.stack(list(found["full"].per_module.values())).sum(0)
    assert oracle.relative(parts, truth) < oracle.tolerance(name)
    biases = BitFit().bind(model).parameters
    truth = expected(
        name, (model, other), lambda m: [m.get_parameter(name) for name in biases], 3, 5
    )
    assert oracle.relative(found["bitfit"].matrix, truth) < oracle.tolerance(name)


def test_exchanging_the_models_transposes_the_kernel() -> None:
    model, batch = build("bert"), ALL["bert"].batch(4)
    other, tunings = move(model), ["full", Propulsion(3), LoRA(2), RandomSubset(500)]
    there = empirical_ntk(model, batch, tunings, other_model=other)
    back = empirical_ntk(other, batch, tunings, other_model=model)
    for name, kernel in there.items():
        assert oracle.relative(kernel.matrix, back[name].matrix.T) < 1e-10


@pytest.mark.parametrize("name", ["mlp", "bert", "deberta-v2", "gpt2-lm"])
def test_kernel_of_a_model_with_itself_is_the_plain_kernel(name: str) -> None:
    architecture, model = ALL[name], build(name)
    batch, tunings = architecture.batch(4), ["full", "propulsion", "random_subset"]
    plain = empirical_ntk(model, batch, tunings, architecture.outputs)
    for other in (model, copy.deepcopy(model)):
        found = empirical_ntk(model, batch, tunings, architecture.outputs, other_model=other)
        for tuning in tunings:
            assert oracle.relative(found[tuning].matrix, plain[tuning].matrix) < 1e-12
            found[tuning].check_symmetric_psd()


@pytest.mark.parametrize("degree", [1, 4])
@pytest.mark.parametrize("name", ["mlp", "bert", "gpt2"])
def test_propulsion_before_wrapping_is_that_of_both_wrapped_models(name: str, degree: int) -> None:
    model = build(name)
    other = move(model)
    found = empirical_ntk(model, ALL[name].batch(3), [Propulsion(degree)], other_model=other)
    wrapped = tuple(wrap(copy.deepcopy(m), PropulsionConfig(degree)) for m in (model, other))
    truth = expected(name, wrapped, gains, 3, 3)
    assert oracle.relative(found["propulsion"].matrix, truth) < 1e-11


def test_input_scalings_use_the_weights_of_their_own_model() -> None:
    """IA3 of one output layer: its rows are (D W) * X, where W must be each side's."""
    model, batch = mlp().double(), vectors(3)
    other = move(model, 0.5)
    found = empirical_ntk(model, batch, [IA3(outputs="3", inputs="3")], other_model=other)
    sides = []
    for m in (model, other):
        x, y = m[:3](batch), m(batch)
        by_output = torch.eye(3, dtype=y.dtype).expand(3, 3, 3) * y[:, None]
        by_input = m[3].weight * x[:, None]
        sides.append(torch.cat([by_output, by_input], 2).flatten(0, 1).detach())
    assert oracle.relative(found["ia3"].matrix, sides[0] @ sides[1].T) < 1e-12


def gains(model: nn.Module) -> list[nn.Parameter]:
    return [scaling.z for scaling in scalings(model).values()]


@pytest.mark.parametrize("name", ["mlp", "bert", "gpt2", "llama"])
def test_wrapped_models_at_two_trained_z(name: str) -> None:
    model = wrap(build(name), PropulsionConfig(3))
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for z in [*gains(model), *gains(other)]:
            z.add_(0.3 * torch.randn(z.shape, generator=generator, dtype=z.dtype))
    batch = ALL[name].batch(3)
    found = empirical_ntk(model, batch, [Propulsion(), Trainable()], other_model=other)
    truth = expected(name, (model, other), gains, 3, 3)
    assert oracle.relative(found["propulsion"].matrix, truth) < oracle.tolerance(name)
    trained = Trainable().bind(model).parameters
    truth = expected(
        name, (model, other), lambda m: [m.get_parameter(name) for name in trained], 3, 3
    )
    assert oracle.relative(found["trainable"].matrix, truth) < oracle.tolerance(name)


def test_each_side_has_its_own_certificate_and_falls_back_on_its_own_model() -> None:
    torch.manual_seed(0)
    model, batch = Fooling().double(), vectors(4)
    other = move(model, 0.3)
    found = empirical_ntk(model, batch, other_model=other)
    left, right = (oracle.gradients(m, batch, "logits", everything(m)) for m in (model, other))
    assert found.exact_fallback.keys() >= {"a.weight", "a.bias"}
    assert oracle.relative(found["full"].matrix, left @ right.T) < 1e-12


@pytest.mark.parametrize("product", ["sign", "asymmetric"])
def test_signs_are_taken_at_their_own_model(product: str) -> None:
    model, batch = build("mlp"), vectors(4)
    other = move(model)
    found = empirical_ntk(model, batch, other_model=other, product=product)["full"].matrix
    left, right = (oracle.gradients(m, batch, "logits", everything(m)) for m in (model, other))
    left = left.sign() if product == "sign" else left
    assert oracle.relative(found, left @ right.sign().T) < 1e-12


@pytest.mark.parametrize("name", ["mlp", "bert", "cnn"])
def test_examples_a_few_at_a_time_and_layers_in_rounds_change_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    architecture, model = ALL[name], build(name)
    arguments = (model, architecture.batch(5), ["full"], architecture.outputs)
    other = move(model)
    at_once = empirical_ntk(*arguments, other_model=other)["full"].matrix

    def frugal(surveys: Any, clusters: Any, *args: Any, **kwargs: Any) -> Plan:
        rounds = [chain.from_iterable(clusters[i::4]) for i in range(min(4, len(clusters)))]
        groups = tuple(frozenset(site.key for site in each) for each in rounds)
        return Plan(groups, chunk=2, budget=0, expected={})

    monkeypatch.setattr(job, "make_plan", frugal)
    found = empirical_ntk(*arguments, other_model=other)["full"].matrix
    assert oracle.relative(found, at_once) < oracle.tolerance(name)


def test_the_wider_precision_of_both_models_is_computed_in() -> None:
    model, batch = build("mlp"), vectors(3)
    other = move(model)
    truth = empirical_ntk(model.float(), batch, dtype=torch.float64, other_model=other)["full"]
    for pair in ((model, other), (other, model)):
        found = empirical_ntk(pair[0], batch, other_model=pair[1])["full"]
        assert found.matrix.dtype == torch.float64
        matrix = found.matrix if pair[0] is model else found.matrix.T
        assert oracle.relative(matrix, truth.matrix) < 1e-12


# -- what the kernel says of itself


@pytest.fixture(scope="module")
def crossed() -> Kernel:
    """A kernel between two perceptrons."""
    model = build("mlp")
    return empirical_ntk(model, vectors(4), other_model=move(model), per_module=True)["full"]


def test_both_models_are_recorded_and_the_kernel_is_not_symmetric(crossed: Kernel) -> None:
    model = build("mlp")
    assert crossed.model_fingerprint == model_fingerprint(model)
    assert crossed.column_model_fingerprint == model_fingerprint(move(model))
    assert crossed.row_fingerprint == crossed.column_fingerprint
    assert not crossed.symmetric
    with pytest.raises(InputError, match="neither symmetric"):
        crossed.check_symmetric_psd()
    assert not crossed.part("3").symmetric


def test_theory_takes_it_for_no_kernel_over_one_set_of_rows_and_columns(crossed: Kernel) -> None:
    plain = empirical_ntk(build("mlp"), vectors(4))["full"]
    assert plain.symmetric
    assert "trace_ratio" in compare_kernels(plain, plain)
    assert "trace_ratio" not in compare_kernels(crossed, plain)
    with pytest.raises(InputError, match="cross kernel"):
        compare_kernels(crossed, plain, same_examples=True)


def test_files_keep_the_columns_model_and_older_ones_need_none(
    crossed: Kernel, tmp_path: Path
) -> None:
    path = tmp_path / "kernels.safetensors"
    save_kernels({"crossed": crossed}, path)
    loaded = load_kernels(path, crossed.model_fingerprint)["crossed"]
    assert loaded.column_model_fingerprint == crossed.column_model_fingerprint
    assert torch.equal(loaded.matrix, crossed.matrix)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    about = json.loads(metadata["kernels"])
    del about["crossed"]["column_model_fingerprint"]
    save_file(load_file(path), path, {**metadata, "kernels": json.dumps(about)})
    assert load_kernels(path)["crossed"].symmetric


# -- the caller's models


@pytest.mark.parametrize("fails", [False, True])
def test_both_models_come_back_as_they_were(fails: bool) -> None:
    model = build("dropout").train()
    other = move(model).eval()
    for m in (model, other):
        m[0].requires_grad_(False)
    values = [copy.deepcopy(m.state_dict()) for m in (model, other)]
    outputs = (lambda output: 1 / 0) if fails else "logits"
    try:
        empirical_ntk(model, vectors(3), ["full"], outputs, other_model=other)
    except InputError:
        assert fails
    assert [model.training, other.training] == [True, False]
    for m, before in zip((model, other), values, strict=True):
        assert [p.requires_grad for p in m.parameters()] == [False, False, True, True]
        assert all(p.grad is None for p in m.parameters())
        assert all(torch.equal(v, before[k]) for k, v in m.state_dict().items())
        assert not any(module._forward_hooks for module in m.modules())


def test_the_plan_is_of_both_sides() -> None:
    model, batch = build("bert"), ALL["bert"].batch(4)
    one = plan_ntk(model, batch)
    two = plan_ntk(model, batch, other_model=move(model))
    assert two.expected["inputs and cotangents"] == 2 * one.expected["inputs and cotangents"]


def unfrozen() -> nn.Module:
    model = build("mlp")
    model[0].requires_grad_(False)
    return model


def test_models_that_do_not_correspond_are_refused() -> None:
    model, batch = build("mlp"), vectors(3)
    cases = [
        (nn.Sequential(nn.Linear(6, 3)).double(), "full", r"'0\.weight'.*\(8, 6\) and \(3, 6\)"),
        (model[:3], "full", r"'3\.weight'.*\(3, 8\) and missing"),
        (nn.Sequential(*model, nn.Linear(3, 3)), "full", r"'4\.weight' are missing and \(3, 3\)"),
        (unfrozen(), "trainable", "'trainable' trains other numbers"),
        (wrap(build("mlp")), "full", "missing"),
    ]
    for other, tuning, message in cases:
        with pytest.raises(InputError, match=message):
            empirical_ntk(model, batch, [tuning], other_model=other)
    empirical_ntk(model, batch, ["full"], other_model=unfrozen())  # frozen or not, Full trains all
