"""empirical_ntk against autograd on every architecture, and what it refuses."""

from __future__ import annotations

import copy
from itertools import chain

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from ntk_propulsion.errors import InputError
from ntk_propulsion.kernels import Options, Plan, empirical_ntk, plan_ntk
from ntk_propulsion.kernels.engine import job
from ntk_propulsion.kernels.engine.certificate import CertificateError
from ntk_propulsion.kernels.outputs import Loss
from ntk_propulsion.kernels.reference import reference_ntk
from ntk_propulsion.kernels.tunings import BitFit, Full, LoRA, Propulsion
from ntk_propulsion.propulsion import PropulsionConfig, wrap
from tests import architectures
from tests.architectures import ALL, build
from tests.kernels import oracle

EXACT = oracle.EXACT
tolerance = oracle.tolerance


@pytest.mark.parametrize("name", ALL)
def test_full_kernel_is_that_of_autograd(name: str) -> None:
    architecture, model = ALL[name], build(name)
    batch = architecture.batch(4)
    found = empirical_ntk(model, batch, ["full"], architecture.outputs)
    expected = oracle.kernel(model, batch, architecture.outputs)
    assert oracle.relative(found["full"].matrix, expected) < tolerance(name)
    assert found.exact_fallback.keys() == architecture.fallback
    assert found.errors.keys() >= {n for n, _ in model.named_parameters()} - architecture.fallback


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2", "llama"])
def test_full_kernel_is_that_of_the_torch_func_reference(name: str) -> None:
    model, batch = build(name), ALL[name].batch(3)
    found = empirical_ntk(model, batch, [Full()])["full"].matrix
    assert oracle.relative(found, reference_ntk(model, batch)) < tolerance(name)


@pytest.mark.parametrize("name", ALL)
def test_cross_kernel_is_that_of_autograd(name: str) -> None:
    architecture, model = ALL[name], build(name)
    batch, other = architecture.batch(3), architecture.batch(5)
    found = empirical_ntk(model, batch, ["full"], architecture.outputs, other=other)
    expected = oracle.kernel(model, batch, architecture.outputs, other)
    assert oracle.relative(found["full"].matrix, expected) < tolerance(name)


@pytest.mark.parametrize("name", ALL)
def test_examples_a_few_at_a_time_and_layers_in_rounds_change_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    architecture, model = ALL[name], build(name)
    batch = architecture.batch(5)
    at_once = empirical_ntk(model, batch, ["full"], architecture.outputs)

    def frugal_plan(surveys, clusters, *args, **kwargs):
        rounds = [chain.from_iterable(clusters[i::4]) for i in range(min(4, len(clusters)))]
        groups = tuple(frozenset(site.key for site in each) for each in rounds)
        return Plan(groups, chunk=2, budget=0, expected={})

    monkeypatch.setattr(job, "make_plan", frugal_plan)
    frugal = empirical_ntk(model, batch, ["full"], architecture.outputs)
    assert oracle.relative(frugal["full"].matrix, at_once["full"].matrix) < tolerance(name)
    assert frugal.exact_fallback == at_once.exact_fallback


@pytest.mark.parametrize("name", ["bert", "gpt2-lm", "albert", "deberta-v2", "cnn", "in-place"])
def test_parts_by_module_add_up_to_the_kernel(name: str) -> None:
    architecture, model = ALL[name], build(name)
    tunings = ["full"] if name in {"cnn", "in-place"} else ["full", "propulsion"]
    found = empirical_ntk(
        model, architecture.batch(3), tunings, architecture.outputs, per_module=True
    )
    for kernel in found.values():
        total = torch.stack(list(kernel.per_module.values())).sum(0)
        assert oracle.relative(total, kernel.matrix) < EXACT
        kernel.check_symmetric_psd()


@pytest.mark.parametrize("outputs", ["margin", "sum", lambda o: o.logits[:, :1] ** 2])
def test_outputs_by_name_and_by_function(outputs: object) -> None:
    model, batch = build("bert"), ALL["bert"].batch(4)
    found = empirical_ntk(model, batch, ["full"], outputs)["full"]
    assert found.matrix.shape == (4, 4)
    assert oracle.relative(found.matrix, oracle.kernel(model, batch, outputs)) < EXACT


def test_float32_agrees_with_float64_to_rounding_and_dtype_is_on_request() -> None:
    model, batch = build("bert"), ALL["bert"].batch(4)
    exact = empirical_ntk(model, batch)["full"].matrix
    model.float()
    single, double = empirical_ntk(model, batch), empirical_ntk(model, batch, dtype=torch.float64)
    assert single["full"].matrix.dtype == torch.float32
    assert oracle.relative(single["full"].matrix.double(), exact) < 1e-5
    assert double["full"].matrix.dtype == torch.float64
    assert oracle.relative(double["full"].matrix, exact) < 1e-6  # parameters were rounded once
    assert next(model.parameters()).dtype == torch.float32


def test_two_runs_agree_to_the_bit() -> None:
    model, batch = build("roberta").float(), ALL["roberta"].batch(5)
    first, second = empirical_ntk(model, batch), empirical_ntk(model, batch)
    assert torch.equal(first["full"].matrix, second["full"].matrix)


class Hidden(torch.autograd.Function):
    """A use of a parameter that no torch function shows: through ``ctx``."""

    @staticmethod
    def forward(ctx, x, holder):
        ctx.save_for_backward(x)
        ctx.holder = holder
        return x * holder[0].detach()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.holder[0].detach(), None


class StraightThrough(torch.autograd.Function):
    """A linear layer with a gradient of its own: the closed form does not know it."""

    @staticmethod
    def forward(ctx, weight):
        return weight.clone()

    @staticmethod
    def backward(ctx, gradient):
        return 3 * gradient


class Fooling(nn.Module):
    """A weight used through a view taken before the pass, unseen by torch functions."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 2)
        self.views = None

    def forward(self, x):
        with torch._C.DisableTorchFunction():
            hidden = torch.nn.functional.linear(x, self.a.weight, self.a.bias)
        return self.b(torch.tanh(self.a(x)) + hidden)


class Rerouted(nn.Module):
    """Examples change places inside: rows of the batch are not those of the examples."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x):
        order = torch.arange(len(x)).flip(0)
        return self.b(torch.tanh(self.a(x[order]))[order])


class Doubled(nn.Module):
    """A hook on a weight changes its gradient behind the closed form's back."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.b(
            torch.tanh(self.a(x)) + nn.functional.linear(x, StraightThrough.apply(self.a.weight))
        )


@pytest.mark.parametrize("make", [Fooling, Rerouted])
def test_certificate_catches_what_the_capture_cannot_see(make: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model, batch = make().double(), architectures.vectors(5)
    found = empirical_ntk(model, batch)
    expected = oracle.kernel(model, batch)
    assert found.exact_fallback.keys() >= {"a.weight", "a.bias"}
    assert oracle.relative(found["full"].matrix, expected) < EXACT
    assert found["full"].exact_fallback == found.exact_fallback
    unchecked = empirical_ntk(model, batch, certificate=False)["full"].matrix
    assert oracle.relative(unchecked, expected) > 1e-3  # the certificate was needed
    with pytest.raises(CertificateError, match=r"a\.weight"):
        empirical_ntk(model, batch, strict=True)


def test_a_gradient_rule_of_ones_own_goes_to_the_general_rule() -> None:
    torch.manual_seed(0)
    model, batch = Doubled().double(), architectures.vectors(4)
    expected = oracle.kernel(model, batch)
    assert oracle.relative(empirical_ntk(model, batch)["full"].matrix, expected) < EXACT


def test_features_that_cannot_be_certified_are_autograds_and_named() -> None:
    torch.manual_seed(0)
    model, batch = Rerouted().double(), architectures.vectors(4)
    found = empirical_ntk(model, batch, [Propulsion(3)])
    wrapped = wrap(copy.deepcopy(model), PropulsionConfig(3))
    gains = [p for name, p in wrapped.named_parameters() if name.endswith("z")]
    rows = oracle.gradients(wrapped, batch, "logits", gains)
    expected = rows @ rows.T
    assert oracle.relative(found["propulsion"].matrix, expected) < EXACT
    assert found.exact_fallback.keys() == {"a (propulsion)"}
    with pytest.raises(CertificateError, match=r"a \(propulsion\)"):
        empirical_ntk(model, batch, [Propulsion(3)], strict=True)


def _state(model: nn.Module) -> tuple:
    return (
        {name: m.training for name, m in model.named_modules()},
        {name: (p.requires_grad, p.grad, id(p)) for name, p in model.named_parameters()},
        [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()],
    )


@pytest.mark.parametrize("name", ["bert", "gpt2-lm", "dropout", "cnn"])
@pytest.mark.parametrize("fails", [False, True])
def test_model_comes_back_as_it_was(name: str, fails: bool) -> None:
    architecture, model = ALL[name], build(name)
    model.train()
    next(iter(model.children())).eval()
    next(model.parameters()).requires_grad_(False)
    state, values = _state(model), copy.deepcopy(model.state_dict())
    outputs = (lambda output: 1 / 0) if fails else architecture.outputs
    try:
        empirical_ntk(model, architecture.batch(3), ["full", "bitfit"], outputs)
    except InputError:
        assert fails
    assert _state(model) == state
    assert all(torch.equal(v, values[k]) for k, v in model.state_dict().items())
    assert torch.is_grad_enabled()


def test_a_model_in_training_mode_is_run_in_evaluation_mode() -> None:
    model, batch = build("cnn"), ALL["cnn"].batch(3)
    expected = empirical_ntk(model, batch, ["full"])["full"].matrix
    assert torch.equal(empirical_ntk(model.train(), batch, ["full"])["full"].matrix, expected)


# -- what the front door takes


X, LABELS = architectures.vectors(4), torch.tensor([0, 1, 2, 0])


@pytest.mark.parametrize(
    ("tuning", "expected"),
    [
        (Full(), "full"),
        (Full, "full"),
        (["full"], "full"),
        (iter(["full"]), "full"),
        (Propulsion(3), Propulsion(3)),
        (PropulsionConfig(3), Propulsion(3)),
        ("bitfit+head", ["bitfit+head"]),
    ],
)
def test_a_tuning_may_be_one_or_several_in_any_form(tuning: object, expected: object) -> None:
    model = build("mlp")
    (found,), (plain,) = (list(empirical_ntk(model, X, t).values()) for t in (tuning, expected))
    assert torch.equal(found.matrix, plain.matrix)
    assert found.tuning == plain.tuning


def test_a_configuration_of_peft_is_a_tuning_of_its_rank_scale_and_layers() -> None:
    peft = pytest.importorskip("peft", reason="PEFT is not installed: pip install peft")
    config = peft.LoraConfig(r=2, lora_alpha=6, target_modules=["query"])
    model, batch = build("bert"), ALL["bert"].batch(3)
    (found,) = empirical_ntk(model, batch, config).values()
    (plain,) = empirical_ntk(model, batch, LoRA(2, 6, "query")).values()
    assert torch.equal(found.matrix, plain.matrix)


def test_full_fine_tuning_is_the_default() -> None:
    assert list(empirical_ntk(build("mlp"), X)) == ["full"]


@pytest.mark.parametrize("data", [TensorDataset(X), X.numpy(), (X,), {"input": X}])
def test_data_in_any_form_gives_the_same_kernel(data: object) -> None:
    model = build("mlp")
    found = empirical_ntk(model, data, other=data)["full"].matrix
    torch.testing.assert_close(found, empirical_ntk(model, X)["full"].matrix)


@pytest.mark.parametrize("data", [TensorDataset(X, LABELS), (X, LABELS)])
def test_labels_beside_the_inputs_are_refused_with_their_place(data: object) -> None:
    with pytest.raises(InputError, match=r"Loss\(labels\)"):
        empirical_ntk(build("mlp"), data)
    assert empirical_ntk(build("mlp"), X, outputs=Loss(LABELS))["full"].shape == (4, 4)


def test_keywords_and_options_are_one() -> None:
    model = build("mlp").float()
    options = Options(dtype="float64", memory="1GiB", seed=4)
    keywords = empirical_ntk(model, X, dtype="float64", memory="1GiB", seed=4)
    found = empirical_ntk(model, X, options=options)
    assert torch.equal(found["full"].matrix, keywords["full"].matrix)
    assert (found.plan, found.errors) == (keywords.plan, keywords.errors)
    assert plan_ntk(model, X, options=options) == plan_ntk(model, X, dtype="float64", memory="1GiB")
    with pytest.raises(InputError, match="one or the other"):
        empirical_ntk(model, X, options=options, dtype="float64")


def test_progress_is_a_bar_or_a_function(capsys: pytest.CaptureFixture) -> None:
    told: list[tuple[int, int]] = []
    empirical_ntk(build("mlp"), X, progress=lambda done, total: told.append((done, total)))
    assert told == [(0, 1), (1, 1)]
    assert capsys.readouterr().out == ""
    empirical_ntk(build("mlp"), X, progress=True)
    assert "kernels" in capsys.readouterr().out


def test_the_front_door_explains_every_form() -> None:
    words = (
        "TensorDataset",
        "DataLoader",
        "PropulsionConfig",
        "LoraConfig",
        "outputs=0",
        "float64",
    )
    assert [word for word in words if word not in (empirical_ntk.__doc__ or "")] == []


class BatchMean(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


@pytest.mark.parametrize(
    ("model", "batch", "keywords", "message"),
    [
        (nn.Linear(6, 2), {"input": torch.zeros(0, 6)}, {}, "zero length"),
        (nn.Linear(6, 2), {"input": torch.zeros(3, 6), "x": torch.zeros(4)}, {}, "disagree.*x: 4"),
        (nn.Linear(6, 2), {}, {}, "no tensor"),
        (nn.Linear(6, 2), torch.zeros(3, 6), {"outputs": lambda o: o.sum()}, "examples, O outputs"),
        (nn.Linear(6, 2), torch.zeros(3, 6), {"outputs": "logit"}, "did you mean logits"),
        (nn.Linear(6, 3), torch.zeros(3, 6), {"outputs": "margin"}, "one or two logits"),
        (nn.Linear(6, 2), torch.zeros(3, 6), {"tunings": ["ful"]}, "did you mean full"),
        (nn.Linear(6, 2), torch.zeros(3, 6), {"tunings": [BitFit(), BitFit()]}, "distinct"),
        (nn.Linear(6, 2), torch.zeros(3, 6), {"tunings": ["layernorm"]}, "no parameters"),
        (nn.Linear(6, 2), torch.zeros(3, 6), {"memory": "8 apples"}, "not a size"),
        (nn.Linear(6, 2), torch.zeros(3, 6), {"memory": 10}, "too small"),
        (nn.Linear(6, 2), torch.zeros(3, 6), {"dtype": "float46"}, "give 'float32' or 'float64'"),
        (nn.Linear(6, 2), torch.zeros(3, 6), {"outputs": 2}, "has 2 logits, columns 0 to 1"),
        (nn.Linear(6, 2), torch.zeros(3, 6), {"outputs": None}, "outputs=None is none"),
        (nn.Linear(6, 2), torch.zeros(3, 6), {"tunings": None}, "None is no tuning"),
        (nn.Linear(6, 2), torch.zeros(3, 6), {"tunings": []}, "distinct names"),
        (nn.Linear(6, 2), None, {}, "data is a NoneType"),
        (None, torch.zeros(3, 6), {}, "the model is a NoneType"),
        (nn.BatchNorm1d(6, track_running_stats=False), torch.randn(3, 6), {}, "batch"),
        (nn.Sequential(nn.Linear(6, 4), BatchMean()), torch.randn(3, 6), {}, "'1' mixes"),
    ],
)
def test_bad_input_is_named(model: nn.Module, batch: object, keywords: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        empirical_ntk(model, batch, **keywords)
